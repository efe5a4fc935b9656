"""``versionfs clone`` as its users meet it."""

from __future__ import annotations

import json

from tests.support.stores import TINY_CHUNKS, settings_in
from versionfs.repo import Store


def test_a_store_is_copied_and_the_copy_works_alone(photos, tmp_path):
    copy = tmp_path / "copy"
    out = photos.ok("clone", photos.home / "store", copy).lines
    assert [line.split("\t")[:2] for line in out[:-1]] == [
        ["created", "photos/dev"],
        ["created", "photos/main"],
        ["created", "photos@v1"],
    ]
    assert "packs copied" in out[-1]
    before = photos.ok("log", "photos", "--json").json
    (photos.home / "store").rename(tmp_path / "away")
    assert photos.ok("--store", copy, "log", "photos", "--json").json == before
    assert photos.ok("--store", copy, "cat", "photos:a.txt").raw == b"alpha and more\n"


def test_again_copies_only_what_is_new(photos, tmp_path):
    copy = tmp_path / "copy"
    first = photos.ok("clone", "--json", photos.home / "store", copy).json
    assert first["packs_copied"] > 0
    assert first["damaged"] == []
    again = photos.ok("clone", "--json", photos.home / "store", copy).json
    assert (again["packs_copied"], again["bytes_copied"]) == (0, 0)
    assert {ref["outcome"] for ref in again["refs"]} == {"same"}
    (photos.folder / "source" / "a.txt").write_bytes(b"third")
    photos.ok("import", "source", "photos", "-m", "third")
    moved = photos.ok("clone", "--json", photos.home / "store", copy).json
    main = next(ref for ref in moved["refs"] if ref["name"] == "main")
    assert (main["outcome"], main["kind"], main["repository"]) == ("moved", "branch", "photos")
    assert photos.ok("--store", copy, "cat", "photos:a.txt").raw == b"third"


def test_a_store_that_cuts_files_elsewhere_is_told(photos, tmp_path):
    Store.create(settings_in(tmp_path / "other"), TINY_CHUNKS).close()
    done = photos.run("clone", photos.home / "store", tmp_path / "other/store")
    assert done.code == 0
    assert "warning" in done.err
    assert "cuts files in other places" in done.err
    assert photos.ok("--store", tmp_path / "other/store", "cat", "photos:a.txt").raw
    photos.ok("clone", photos.home / "store", tmp_path / "alike")  # says nothing


def test_one_repository_named_behind_the_store_or_by_an_option(photos, tmp_path):
    photos.ok("import", "source", "other")
    store = photos.home / "store"
    photos.ok("clone", f"{store}/photos", tmp_path / "a")
    photos.ok("clone", f"file://{store}/photos/", tmp_path / "b")
    photos.ok("clone", "--repo", "photos", store, tmp_path / "c")
    for name in "abc":
        listed = photos.ok("--store", tmp_path / name, "repo", "list").rows
        assert [row[0] for row in listed] == ["photos"]


def test_names_that_do_not_exist(photos, tmp_path):
    store = photos.home / "store"
    assert "fotos" in photos.fails(3, "clone", f"{store}/fotos", tmp_path / "x").err
    assert "fotos" in photos.fails(3, "clone", "--repo", "fotos", store, tmp_path / "x").err
    err = photos.fails(3, "clone", tmp_path / "none", tmp_path / "x").err
    assert f"no store at {tmp_path / 'none'}\n" in err
    assert not (tmp_path / "none").exists()


def test_a_target_that_is_the_source_or_something_else(photos, tmp_path):
    store = photos.home / "store"
    assert "same store" in photos.fails(2, "clone", store, f"file://{store}").err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"x")
    assert "not a versionfs store" in photos.fails(9, "clone", store, tmp_path / "full").err


def test_a_branch_that_has_diverged_is_told_and_left(photos, tmp_path):
    store, copy = photos.home / "store", tmp_path / "copy"
    photos.ok("clone", store, copy)
    (photos.folder / "source" / "a.txt").write_bytes(b"here")
    photos.ok("import", "source", "photos", "-m", "here")
    (photos.folder / "source" / "a.txt").write_bytes(b"there, longer")
    photos.ok("--store", copy, "import", "source", "photos", "-m", "there")
    result = photos.fails(5, "clone", store, copy)
    assert "photos/main" in result.err
    assert "--force" in result.err
    assert ["diverged", "photos/main"] in [row[:2] for row in result.rows]
    assert json.loads(photos.run("clone", "--json", store, copy).out)["refs"]
    assert photos.ok("--store", copy, "cat", "photos:a.txt").raw == b"there, longer"
    photos.ok("clone", "--force", store, copy)
    assert photos.ok("--store", copy, "cat", "photos:a.txt").raw == b"here"


def test_a_damaged_pack_is_named(photos, tmp_path):
    store = photos.home / "store"
    for pack in (store / "packs").rglob("*"):
        if pack.is_file() and pack.read_bytes()[8] == 0:
            data = bytearray(pack.read_bytes())
            data[20] ^= 1
            pack.write_bytes(data)
            break
    result = photos.run("clone", store, tmp_path / "copy")
    assert result.code == 8
    assert pack.name in result.err
    assert "damaged" in {row[0] for row in result.rows}


def test_progress_counts_packs(photos, tmp_path):
    code, shown = photos.terminal("clone", photos.home / "store", tmp_path / "copy")
    assert code == 0
    assert "created" in shown
