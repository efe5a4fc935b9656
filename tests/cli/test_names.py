from __future__ import annotations

import pytest


def test_branches_are_listed_created_and_deleted(photos):
    assert [row[0] for row in photos.ok("branch", "photos").rows] == ["dev", "main"]
    assert photos.ok("branch", "photos/fix").out.startswith("created branch fix of photos at ")
    ids = {row[0]: row[1] for row in photos.ok("branch", "photos").rows}
    assert ids["fix"] == ids["main"] != ids["dev"]
    assert photos.ok("branch", "-d", "photos/fix").out == "deleted branch fix of photos\n"
    assert [row[0] for row in photos.ok("branch", "photos").rows] == ["dev", "main"]


@pytest.mark.parametrize(
    "start", ["@~1", "@v1", "dev", "main@~1", "photos/main@~1", "photos@v1", "photos/dev@head"]
)
def test_a_branch_or_tag_starts_at_any_revision(photos, start):
    wanted = photos.ok("show", "photos@v1", "--json").json["id"]
    assert photos.ok("branch", "photos/new", start, "--json").json["commit"] == wanted
    assert photos.ok("tag", "photos@new", start, "--json").json["commit"] == wanted


def test_tags_are_listed_created_and_deleted(photos):
    assert [row[0] for row in photos.ok("tag", "photos").rows] == ["v1"]
    photos.ok("tag", "photos@v2")
    photos.ok("tag", "photos/dev@v0")
    ids = {row[0]: row[1] for row in photos.ok("tag", "photos").rows}
    assert list(ids) == ["v0", "v1", "v2"]
    assert ids["v0"] == ids["v1"] != ids["v2"]
    assert photos.ok("show", "photos@v2", "--json").json["tags"] == ["v2"]
    assert photos.ok("tag", "-d", "photos@v2").out == "deleted tag v2 of photos\n"


def test_lists_as_json(photos):
    branches = photos.ok("branch", "photos", "--json").json
    assert [(ref["kind"], ref["name"], ref["number"]) for ref in branches] == [
        ("branch", "dev", 1),
        ("branch", "main", 2),
    ]
    assert photos.ok("tag", "photos", "--json").json[0]["subject"] == "first"


def test_a_taken_name_is_refused(photos):
    photos.fails(4, "branch", "photos/dev")
    photos.fails(4, "tag", "photos@v1")
    photos.fails(4, "repo", "create", "photos")


def test_the_last_holder_of_commits_is_not_deleted_without_force(photos):
    result = photos.fails(2, "branch", "-d", "photos/main")
    assert "no other branch or tag" in result.err
    assert "--force" in result.err
    photos.ok("branch", "-d", "photos/dev")
    assert "only branch" in photos.fails(2, "branch", "-d", "photos/main").err
    assert len(photos.ok("log", "photos").lines) == 2
    photos.ok("branch", "-d", "photos/main", "--force")
    assert "only" not in photos.fails(2, "tag", "-d", "photos@v1").err
    photos.ok("tag", "-d", "photos@v1", "--force")
    assert photos.ok("ls", "photos").out == ""


def test_names_that_do_not_exist(photos):
    photos.fails(3, "branch", "-d", "photos/none")
    photos.fails(3, "tag", "-d", "photos@none")
    photos.fails(3, "branch", "none")
    photos.fails(3, "branch", "photos/new", "@none")
    photos.fails(3, "repo", "delete", "none", "--yes")


@pytest.mark.parametrize(
    "arguments",
    [
        ["branch", "photos@v1"],
        ["branch", "photos/dev:path"],
        ["branch", "-d", "photos"],
        ["branch", "photos/new", "other/main"],
        ["branch", "photos/-bad"],
        ["branch", "photos/a/b"],
        ["tag", "photos@.bad"],
        ["tag", "photos:path"],
        ["tag", "-d", "photos"],
        ["tag"],
        ["branch"],
        ["repo", "create", "a/b"],
        ["repo", "create", ".hidden"],
        ["repo", "create", "a@b"],
    ],
    ids=" ".join,
)
def test_bad_names_are_refused(photos, arguments):
    photos.fails(2, *arguments)


def test_repositories_are_created_listed_and_deleted(cli):
    assert cli.ok("repo", "create", "photos").out == "created repository photos\n"
    assert cli.ok("repo", "list").rows == [["photos", "0", "0"]]
    assert cli.ok("repo", "list", "--json").json == [{"name": "photos", "branches": [], "tags": []}]
    assert cli.ok("ls", "photos").out == ""
    assert cli.ok("repo", "delete", "photos", "--yes", "--json").json["action"] == "deleted"
    assert cli.ok("repo", "list").out == ""


def test_deleting_a_repository_needs_a_confirmation(photos):
    assert "--yes" in photos.fails(2, "repo", "delete", "photos").err
    code, shown = photos.terminal("repo", "delete", "photos", answer="n\n")
    assert code == 130
    assert "Delete repository photos with 2 branches and 1 tag?" in shown
    assert photos.ok("repo", "list").lines
    code, shown = photos.terminal("repo", "delete", "photos", answer="y\n")
    assert code == 0
    assert photos.ok("repo", "list").out == ""


def test_init_makes_a_store_once(cli):
    assert cli.ok("init", "elsewhere").out.startswith("made a store at ")
    cli.fails(4, "init", "elsewhere")
    cli.ok("--store", "elsewhere", "repo", "create", "photos")
    assert cli.ok("ls", "--store", "elsewhere").out == "photos\n"
    assert cli.ok("ls", VERSIONFS_STORE="elsewhere").out == "photos\n"
    assert not (cli.home / "store").exists()
    assert set(cli.ok("init", "--json").json) == {"action", "store", "store_id"}


def test_flags_win_over_the_environment_over_the_config(cli):
    for name in ("flag", "env", "config"):
        cli.ok("init", name)
        cli.ok("--store", name, "repo", "create", f"in-{name}")
    cli.home.mkdir(exist_ok=True)
    (cli.home / "config.toml").write_text(f'store = "{cli.folder}/config"\n')
    assert cli.ok("ls").out == "in-config\n"
    assert cli.ok("ls", VERSIONFS_STORE="env").out == "in-env\n"
    assert cli.ok("--store", "flag", "ls", VERSIONFS_STORE="env").out == "in-flag\n"
    assert cli.ok("--home", "other", "repo", "list", "--store", "flag").out == "in-flag\t0\t0\n"
