"""A store that fails now and then, loses replies, or lists what it had a while ago."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.stores import bring, head, make_store, settings_in
from versionfs.errors import AlreadyExistsError, ConflictError, StorageTransientError
from versionfs.objectstore import LocalStore, ObjectInfo, Version
from versionfs.repo import Store
from versionfs.transfer import export

FILES: dict[str, bytes | None] = {
    **{f"d{i % 5}/f{i}": Random(i).randbytes(3000) for i in range(150)},
    "large": Random(0).randbytes(1_500_000),
}
CHANGES = 5
"""An import of these changes a store so often: a pack of each kind, their segment, a reflog object,
the ref."""


class Scripted(LocalStore):
    """A local store that does what ``script`` says instead of, or besides, its n-th change.

    ``script`` gets the number, the key, and the change to make.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.changes = 0
        self.script: Callable[[int, str, Callable[[], object]], object] = _do
        self.listed: dict[str, list[ObjectInfo]] = {}
        self._counting = threading.Lock()

    def _change(self, key: str, change: Callable[[], object]) -> object:
        with self._counting:
            self.changes += 1
            number = self.changes
        return self.script(number, key, change)

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._change(key, lambda: LocalStore.put(self, key, data))

    def put_file(self, key: str, path: Path) -> None:
        self._change(key, lambda: LocalStore.put_file(self, key, path))

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        done = self._change(key, lambda: LocalStore.replace(self, key, data, expected))
        assert isinstance(done, str)
        return Version(done)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self.listed[prefix]) if prefix in self.listed else super().list(prefix)


def _do(_number: int, _key: str, change: Callable[[], object]) -> object:
    return change()


def failing_at(turn: int, *, done: bool) -> Callable[[int, str, Callable[[], object]], object]:
    """Returns a script whose n-th change fails: undone, or done and only the reply is lost."""

    def script(number: int, _key: str, change: Callable[[], object]) -> object:
        if number != turn:
            return change()
        if done:
            change()
        raise StorageTransientError("no reply")

    return script


@pytest.fixture
def flaky(home: Path) -> Iterator[tuple[Store, Scripted]]:
    """A store with one version, on objects that follow a script."""
    with make_store(home) as store:
        form = store.format
    objects = Scripted(home / "store")
    with Store(settings_in(home), objects, form) as store:
        yield store, objects


@pytest.mark.parametrize("done", [False, True], ids=["refused", "reply lost"])
@pytest.mark.parametrize("turn", range(1, CHANGES + 1))
def test_a_change_that_fails_leaves_a_branch_that_is_whole_and_a_rerun_completes(
    flaky: tuple[Store, Scripted],
    source: Path,
    tmp_path: Path,
    home: Path,
    turn: int,
    done: bool,
) -> None:
    store, objects = flaky
    fill(source, {"first": b"1"})
    before = bring(store, source).commit
    assert before is not None
    fill(source, FILES)
    objects.changes, objects.script = 0, failing_at(turn, done=done)
    with pytest.raises(StorageTransientError, match="no reply"):
        bring(store, source, message="second")
    landed = done and turn == CHANGES
    assert (head(store) != before) == landed
    assert list((home / "store" / "tmp").iterdir()) == []
    objects.script = _do
    again = bring(store, source, message="third")
    assert (again.commit is None) == landed
    assert [c.message for c in store.repository("photos").history(head(store))] == [
        "second" if landed else "third",
        "m",
    ]
    export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)


def test_an_import_makes_as_many_changes_as_the_test_above_fails(
    flaky: tuple[Store, Scripted], source: Path
) -> None:
    store, objects = flaky
    fill(source, {"first": b"1"})
    bring(store, source)
    fill(source, FILES)
    objects.changes = 0
    bring(store, source)
    assert objects.changes == CHANGES


def told_of_a_conflict(number: int, key: str, change: Callable[[], object]) -> object:
    """A client that tries again after a lost reply: its first try won, its second is told so."""
    done = change()
    if "/branches/" in key or "/tags/" in key:
        raise ConflictError(f"{key} was changed by someone else")
    return done


def test_a_move_that_won_though_it_is_told_of_a_conflict_is_a_success(
    flaky: tuple[Store, Scripted], source: Path
) -> None:
    store, objects = flaky
    objects.script = told_of_a_conflict
    for number in range(3):
        fill(source, {"file": b"%d" % number}, age=False)
        result = bring(store, source, message=str(number))
        assert result.commit == head(store)
    photos = store.repository("photos")
    assert [c.message for c in photos.history(head(store))] == ["2", "1", "0"]
    photos.create_tag("v1", head(store))
    photos.create_branch("other", head(store))
    objects.script = _do
    with pytest.raises(AlreadyExistsError):
        photos.create_tag("v1", head(store))


def test_packs_that_a_listing_does_not_show_yet_are_only_stored_again(
    flaky: tuple[Store, Scripted], source: Path, tmp_path: Path
) -> None:
    """A listing may lag behind; what it lacks is not deduplicated against, and all is well."""
    store, objects = flaky
    fill(source, FILES)
    objects.listed["packs/"] = []
    first = bring(store, source).commit
    assert first is not None
    again = bring(store, source, branch="again", checksum=True).commit
    assert again is not None
    assert again.root.content == first.root.content
    objects.listed.clear()
    result = bring(store, source, branch="third", checksum=True)
    assert result.new_bytes == 0
    for branch in ("main", "again", "third"):
        export(store, head(store, branch).root, tmp_path / branch)
        assert describe(tmp_path / branch) == describe(source)


def test_packs_that_a_listing_still_shows_but_are_gone_are_not_believed(
    flaky: tuple[Store, Scripted], source: Path, tmp_path: Path, home: Path
) -> None:
    """It is looked for before anything is deduplicated against it, segment or not."""
    store, objects = flaky
    fill(source, FILES)
    bring(store, source)
    objects.listed["packs/"] = list(LocalStore.list(objects, "packs/"))
    fresh = settings_in(tmp_path / "elsewhere", store=home / "store")
    store.close()
    for path in (home / "store" / "packs").glob("*/*"):
        path.unlink()
    with Store(fresh, objects, store.format) as other:
        bring(other, source, branch="again")
        export(other, head(other, "again").root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)
