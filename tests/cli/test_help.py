from __future__ import annotations

import pytest

from versionfs.cli.main import SECTIONS

COMMANDS: list[tuple[str, ...]] = [(name,) for section in SECTIONS.values() for name in section]
NESTED: list[tuple[str, ...]] = [("repo", "list"), ("repo", "create"), ("repo", "delete")]


@pytest.mark.parametrize("command", COMMANDS + NESTED, ids=" ".join)
def test_every_command_has_help_with_an_example(cli, command):
    shown = cli.ok(*command, "--help").out
    assert f"Usage: versionfs {' '.join(command)}" in shown
    assert "Example" in shown
    example = shown.partition("Example")[2]
    assert f"versionfs {' '.join(command)}" in example
    if command != ("repo",):
        assert "--json" in shown


def test_the_help_of_all_names_every_command_and_completion(cli):
    shown = cli.ok("--help").out
    for command in COMMANDS:
        assert f"  {command[0]}" in shown
    assert "_VERSIONFS_COMPLETE=bash_source" in shown
    assert "REPO[/BRANCH][@REV][:PATH]" in shown


def test_without_a_command_the_help_goes_to_standard_error(cli):
    result = cli.run()
    assert result.code == 2
    assert result.out == ""
    assert "Usage:" in result.err


def test_the_version_is_shown(cli):
    assert cli.ok("--version").out == cli.ok("version").out
    assert cli.ok("version").out.startswith("versionfs ")
    assert set(cli.ok("version", "--json").json) == {"version", "python", "system"}


def test_completion_lists_the_commands(cli):
    result = cli.run(_VERSIONFS_COMPLETE="bash_complete", COMP_WORDS="versionfs mo", COMP_CWORD="1")
    assert "mount" in result.out
    assert "mounts" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["lgo"],
        ["log", "--unknown"],
        ["cat"],
        ["export", "photos"],
        ["log", "photos", "-n", "many"],
        ["import", "x", "y", "--metadata", "novalue"],
        ["--color", "pink", "ls"],
        ["diff", "a", "b", "--stat", "-z"],
    ],
)
def test_usage_errors_have_the_style_of_all_errors(cli, arguments):
    result = cli.fails(2, *arguments)
    assert result.out == ""
    assert "hint: `versionfs" in result.err


def test_an_unknown_command_names_those_that_look_alike(cli):
    assert "did you mean log?" in cli.fails(2, "lgo").err
