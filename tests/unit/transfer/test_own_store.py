"""A source that has the store in it, as a home folder has: no version has the store in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.folders import fill
from tests.support.stores import bring, head, make_store, names, settings_in
from versionfs.errors import InvalidInputError
from versionfs.repo import Store


def test_an_import_of_a_folder_with_the_store_in_it_leaves_the_store_out(source: Path) -> None:
    fill(source, {"file": b"x", "z": b"z"})
    with make_store(source / ".versionfs") as store:
        for folder in ("cache/index", "store"):
            assert (source / ".versionfs" / folder).is_dir()
        warnings: list[str] = []
        result = bring(store, source, warn=warnings.append)
        assert {os.path.relpath(path, os.fsencode(source)) for path, _ in result.skipped} == {
            b".versionfs/store",
            b".versionfs/cache/index",
        }
        assert len(warnings) == 2
        assert all("a folder that this store uses" in warning for warning in warnings)
        assert names(store, head(store).root) == [
            b".versionfs",
            b".versionfs/cache",
            b"file",
            b"z",
        ]
        # Nothing that the first import wrote is new to the second.
        assert bring(store, source, warn=warnings.append).commit is None


def test_a_store_is_found_whatever_name_leads_to_it(source: Path, home: Path) -> None:
    fill(source, {"file": b"x", "real": None})
    (home.parent / "link").symlink_to(source / "real")
    settings = settings_in(home, store=home.parent / "link" / "store")
    with Store.create(settings) as store:
        store.create_repository("photos")
        bring(store, source, warn=lambda _: None)
        assert names(store, head(store).root) == [b"file", b"real"]


def test_another_store_is_data_like_any_other(store: Store, source: Path) -> None:
    make_store(source / "other").close()
    bring(store, source)
    assert b"other/store/versionfs.json" in names(store, head(store).root)


def test_a_store_cannot_be_imported_into_itself(store: Store, home: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot hold itself"):
        bring(store, home / "store")
    assert store.repository("photos").branches() == {}
