"""The entry point and the command group: global options, and commands that load when called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import versionfs
from versionfs.cli import boundary
from versionfs.cli.command import global_options
from versionfs.cli.session import Session

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Data": {
        "import": ("importing:import_command", "Store a folder, file or tar as a new commit."),
        "export": ("exporting:export_command", "Write a version to a folder or file."),
        "clone": ("cloning:clone_command", "Copy a repository or a store to another store."),
    },
    "Work": {
        "status": ("workspaces:status_command", "Show what is changed in a branch folder."),
        "commit": ("workspaces:commit_command", "Make a new version of what is changed."),
        "restore": ("workspaces:restore_command", "Discard what is changed."),
    },
    "Mount": {
        "mount": ("mounting:mount_command", "Show every version as a folder."),
        "umount": ("mounting:umount_command", "End a mount."),
        "mounts": ("mounting:mounts_command", "List the mounts of this machine."),
        "fetch": ("fetching:fetch_command", "Look for what other machines committed, now."),
    },
    "Look": {
        "log": ("history:log_command", "List the commits of a branch, newest first."),
        "show": ("showing:show_command", "Show a commit, or one file or folder in it."),
        "ls": ("listing:ls_command", "List repositories, branches and tags, or a folder."),
        "cat": ("reading:cat_command", "Write the bytes of a file."),
        "diff": ("comparing:diff_command", "Show what changed between two versions."),
        "stats": ("statistics:stats_command", "Show sizes, deduplication and compression."),
    },
    "Names": {
        "branch": ("refs:branch_command", "List, create or delete branches."),
        "tag": ("refs:tag_command", "List, create or delete tags."),
        "repo": ("repositories:repo_group", "List, create or delete repositories."),
    },
    "Setup": {
        "init": ("repositories:init_command", "Make a store."),
        "doctor": ("diagnosis:doctor_command", "Check what a mount needs, and how to get it."),
        "version": ("diagnosis:version_command", "Show the version."),
    },
}
"""The commands by section: where each is defined (module:name, loaded on use) and its summary."""

HELP = """Git for data, as a file system: every version of a data set is a folder.

A version is named by a SPEC:

\b
  REPO[/BRANCH][@REV][:PATH]
  photos                   the branch main of the repository photos
  photos/dev               another branch
  photos@~3                three commits back
  photos/main@2026-11-01   as it was at the end of that day
  photos@9f3c2a            a commit, by 4 hex digits of its id or more
  photos@v1.0:sub/a.jpg    a file in the tag v1.0

The default branch is main. Inside a mount the current directory says it: SPEC may be left out,
be short (@~3, :PATH), or be a path (., ./sub). An existing path inside a mount always stands for
what it shows.

A branch folder can be written with any program; status, diff, commit and restore are about what is
changed in it. They work in the folder, by SPEC, and without a mount.

Results are tables on a terminal, stable plain lines in a pipe (fields separated by tabs, odd names
quoted as git quotes them, ids of 12 digits), and JSON with --json.
"""

EPILOG = """\b
Start with:
  versionfs import ~/pictures photos && versionfs mount ~/data

\b
Completion for bash (also zsh_source, fish_source):
  eval "$(_VERSIONFS_COMPLETE=bash_source versionfs)"
"""


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Returns the names of all commands."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports and returns a command, or None when there is none of this name."""
        for section in SECTIONS.values():
            if cmd_name in section:
                module, attribute = section[cmd_name][0].split(":")
                loaded = importlib.import_module(f"versionfs.cli.{module}")
                command: click.Command = getattr(loaded, attribute)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown command names those that look alike."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=2)
            guess = f"; did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"there is no command {name!r}{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the commands in their sections, without importing them."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(7), summary) for name, (_, summary) in section.items()]
                )


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"versionfs {versionfs.__version__}")
        context.exit()


group = LazyGroup(
    name="versionfs",
    help=HELP,
    epilog=EPILOG,
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; ``arguments`` defaults to ``sys.argv``."""
    _prepare_streams()
    session = Session(os.environ)
    program = os.path.basename(sys.argv[0])
    if program not in ("versionfs", "vfs"):
        program = "versionfs"

    session.show_log()

    def body() -> int:
        _complete(program)
        # Not group.main(): that one has ideas of its own about interrupts and closed pipes.
        words = list(sys.argv[1:] if arguments is None else arguments)
        with group.make_context(program, words, obj=session) as context:
            result: Any = group.invoke(context)
        return result if isinstance(result, int) else 0

    return boundary.run(session, body)


def _complete(program: str) -> None:
    """Answers a shell that asks for completions, and exits; does nothing otherwise."""
    variable = f"_{program.upper()}_COMPLETE"
    instruction = os.environ.get(variable)
    if instruction:
        from click.shell_completion import shell_complete

        raise click.exceptions.Exit(shell_complete(group, {}, program, variable, instruction))


def _prepare_streams() -> None:
    # What is not text in the terminal's encoding is escaped rather than an error.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
