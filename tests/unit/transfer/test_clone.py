"""Clone: all that the refs need, nothing twice, nothing damaged, nothing taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.machines import CountingFolder, machine
from tests.support.stores import bring, content, head, make_store, names, settings_in
from versionfs.chunkstore import metadata_writer, writer
from versionfs.errors import InvalidInputError, NotFoundError, StorageTransientError
from versionfs.pack import PackKind, pack_key
from versionfs.repo import RefKind, Store
from versionfs.transfer import Outcome, clone, export, import_source
from versionfs.transfer.cloner import CloneProgress, CloneResult
from versionfs.types import Commit, NodeRef

FILES = {f"d{i % 5}/e{i % 11}/f{i}": 3000 + i for i in range(150)}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with two commits of ``photos`` and a tag, and another repository."""
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 50_000)
    monkeypatch.setattr(metadata_writer, "PACK_TARGET_BYTES", 1_000)
    rng = Random(9)
    files = {name: rng.randbytes(size) for name, size in FILES.items()}
    folder = tmp_path / "files"
    fill(folder, files | {"large": rng.randbytes(3_000_000)})
    other = tmp_path / "other"
    fill(other, {f"o{i}": rng.randbytes(9_000) for i in range(30)})
    with make_store(tmp_path / "home") as store:
        bring(store, folder, message="first")
        store.repository("photos").create_tag("v1", head(store))
        fill(folder, {"d1/new": b"new", "d3/e3/f3": b"changed"})
        bring(store, folder, message="second")
        import_source(store, "texts", "main", b"", other, message="o", author="ada")
        yield store


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[Store, CountingFolder]]:
    store, objects = machine(tmp_path / "there", tmp_path / "copy")
    with store:
        yield store, objects


def packs(store: Store) -> dict[str, int]:
    return {info.key: info.size for info in store.objects.list("packs/")}


def list_of(store: Store, prefix: str) -> list[str]:
    return [info.key for info in store.objects.list(prefix)]


def outcomes(result: CloneResult) -> dict[str, str]:
    return {f"{ref.repository}:{ref.name}": ref.outcome.value for ref in result.refs}


def commits(store: Store, repository: str = "photos") -> list[str]:
    found = store.repository(repository)
    return [commit.message for commit in found.history(found.resolve("main", None))]


def same_content(one: Store, other: Store, folder: Path) -> None:
    for number, store in enumerate((one, other)):
        export(store, head(store).root, folder / f"export{number}")
    assert describe(folder / "export0") == describe(folder / "export1")


def test_a_whole_store(source: Store, target: tuple[Store, CountingFolder], tmp_path: Path) -> None:
    there, objects = target
    objects.latency = 0.002
    told: list[CloneProgress] = []
    result = clone(source, there, progress=told.append)
    assert packs(there) == packs(source)
    assert result.packs_copied == len(packs(source))
    assert list_of(there, "index/") == list_of(source, "index/")
    assert result.bytes_copied == sum(packs(source).values())
    assert outcomes(result) == {
        "photos:main": "created",
        "photos:v1": "created",
        "texts:main": "created",
    }
    assert there.repositories() == ["photos", "texts"]
    assert commits(there) == ["second", "first"]
    same_content(source, there, tmp_path)
    assert objects.most_at_once > 1
    assert told[-1] == max(told, key=lambda state: (state.files, state.bytes))
    assert (told[-1].files, told[-1].bytes) == (result.packs_copied, result.bytes_copied)
    # Packs, then segments, then refs.
    kinds = [key.split("/")[0] for key in objects.kept]
    assert kinds == sorted(kinds, key=["packs", "index", "repos"].index)
    assert list(objects.temporary().iterdir()) == []


def test_one_repository_takes_only_its_packs(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    result = clone(source, there, "photos")
    assert there.repositories() == ["photos"]
    assert set(packs(there)) < set(packs(source))
    assert result.packs_present == 0
    assert len(list_of(there, "index/")) == 1
    same_content(source, there, tmp_path)
    assert content(there, b"d3/e3/f3") == b"changed"
    tag = there.repository("photos").resolve(None, "v1")
    assert there.trees.walk_path(tag.root, b"d1/new") is None
    assert len(names(there, tag.root)) == len(names(source, tag.root))


def test_a_second_clone_copies_only_what_is_new(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, objects = target
    for repository in ("photos", None):
        clone(source, there, repository)
        objects.forget()
        again = clone(source, there, repository)
        assert (again.packs_copied, again.bytes_copied) == (0, 0)
        assert set(outcomes(again).values()) == {"same"}
        assert objects.sent == 0
    fill(tmp_path / "files", {"d1/new": b"newer"})
    bring(source, tmp_path / "files", message="third")
    result = clone(source, there, "photos")
    assert 0 < result.packs_copied < 8
    assert outcomes(result) == {"photos:main": "moved", "photos:v1": "same"}
    assert commits(there) == ["third", "second", "first"]
    assert content(there, b"d1/new") == b"newer"


def test_an_incremental_clone_does_not_read_history_that_the_target_has(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    for number in range(12):
        fill(tmp_path / "files", {"d1/new": b"%d" % number})
        bring(source, tmp_path / "files", message=str(number))
    clone(source, there, "photos")
    fill(tmp_path / "files", {"d1/new": b"last"})
    bring(source, tmp_path / "files", message="last")
    read = []
    with Store.open(settings_in(tmp_path / "fresh", store=tmp_path / "home" / "store")) as fresh:
        load = fresh.commits.read

        def counted(ref: NodeRef) -> Commit:
            read.append(ref)
            return load(ref)

        fresh.commits.read = counted  # type: ignore[method-assign]
        assert clone(fresh, there, "photos").packs_copied > 0
    assert len(read) < 10
    assert content(there, b"d1/new") == b"last"


def test_a_clone_that_was_cut_off_goes_on(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, objects = target
    total = sum(packs(source).values())

    def fail(operation: str, _key: str) -> None:
        if operation == "put" and objects.sent > total / 2:
            raise StorageTransientError("the network is gone")

    objects.fail = fail
    with pytest.raises(StorageTransientError):
        clone(source, there)
    assert there.repositories() == []
    first = objects.sent
    objects.forget()
    objects.fail = lambda _operation, _key: None
    result = clone(source, there)
    assert result.packs_present > 0
    assert result.bytes_copied <= total - first + 1_000_000
    assert packs(there) == packs(source)
    same_content(source, there, tmp_path)


def test_what_a_clone_copied_is_deduplicated_against(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, objects = target
    clone(source, there, "photos")
    metadata = sum(1 for key in packs(there) if not is_data(there, key))
    objects.forget()
    there.sync_index()
    # One segment for all packs with chunks; those with metadata are asked one by one.
    assert objects.requests == {"list": 2, "get": 1 + metadata}
    assert bring(there, tmp_path / "files", branch="other").new_bytes == 0


def is_data(store: Store, key: str) -> bool:
    return store.objects.get(key, 8, 1)[0] == PackKind.DATA


def test_the_target_gets_the_chunk_sizes_and_keeps_its_own_data(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    fill(tmp_path / "mine", {"mine": b"mine"})
    import_source(there, "mine", "main", b"", tmp_path / "mine", message="m", author="eve")
    clone(source, there)
    assert there.repositories() == ["mine", "photos", "texts"]
    assert commits(there, "mine") == ["m"]


def diverge(there: Store, tmp_path: Path) -> Commit:
    fill(tmp_path / "elsewhere", {"a": b"elsewhere"})
    bring(there, tmp_path / "elsewhere", message="elsewhere")
    return head(there)


def test_a_branch_with_commits_of_its_own_is_left_alone(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    clone(source, there)
    mine = diverge(there, tmp_path)
    assert outcomes(clone(source, there))["photos:main"] == "ahead"
    assert head(there).id == mine.id
    fill(tmp_path / "files", {"d1/new": b"newer"})
    bring(source, tmp_path / "files", message="third")
    result = clone(source, there)
    assert outcomes(result)["photos:main"] == "diverged"
    assert head(there).id == mine.id

    forced = clone(source, there, force=True)
    assert outcomes(forced)["photos:main"] == "moved"
    assert commits(there) == ["third", "second", "first"]
    moves = [
        json.loads(there.objects.get(info.key))
        for info in there.objects.list("repos/photos/reflog/main/")
    ]
    assert (moves[-1]["old"]["commit"], moves[-1]["reason"]) == (mine.id.hex(), "clone")


def test_a_tag_never_moves_by_itself(source: Store, target: tuple[Store, CountingFolder]) -> None:
    there, _ = target
    clone(source, there)
    photos = there.repository("photos")
    old = photos.tag("v1").commit
    photos.delete_tag("v1")
    photos.create_tag("v1", head(there))
    result = clone(source, there)
    assert outcomes(result)["photos:v1"] == "diverged"
    assert photos.tag("v1").commit.id == head(there).id
    assert outcomes(clone(source, there, force=True))["photos:v1"] == "moved"
    assert photos.tag("v1").commit.id == old.id


def harm(store: Store, key: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "home" / "store" / key
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        return
    if how == "flip":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)


@pytest.mark.parametrize("repository", [None, "photos"])
@pytest.mark.parametrize("how", ["flip", "truncated"])
def test_a_damaged_pack_is_named_and_what_needs_it_is_not_published(
    source: Store,
    target: tuple[Store, CountingFolder],
    tmp_path: Path,
    how: str,
    repository: str | None,
) -> None:
    there, objects = target
    entry = source.trees.walk_path(head(source).root, b"d1/new")
    assert entry is not None
    assert entry.location is not None
    pack = entry.location.pack
    harm(source, pack_key(pack), how, tmp_path)
    result = clone(source, there, repository)
    assert result.damaged == [pack.hex()]
    found = outcomes(result)
    assert found["photos:main"] == "damaged"
    assert found["photos:v1"] == "created"
    assert found.get("texts:main", "created") == "created"
    assert there.repository("photos").branches() == {}
    assert pack_key(pack) not in packs(there)
    # What segments of the source vouch for may not be there.
    assert not set(list_of(there, "index/")) & set(list_of(source, "index/"))
    assert [ref.name for ref in result.with_outcome(Outcome.DAMAGED)] == ["main"]
    assert list(objects.temporary().iterdir()) == []


@pytest.mark.parametrize("repository", [None, "photos"])
def test_a_lost_pack_stops_only_the_refs_that_need_it(
    source: Store,
    target: tuple[Store, CountingFolder],
    tmp_path: Path,
    repository: str | None,
) -> None:
    there, _ = target
    entry = source.trees.walk_path(head(source).root, b"d1/new")
    assert entry is not None
    assert entry.location is not None
    harm(source, pack_key(entry.location.pack), "gone", tmp_path)
    result = clone(source, there, repository)
    assert result.damaged == [entry.location.pack.hex()]
    found = outcomes(result)
    assert found.pop("texts:main", "created") == "created"
    assert found == {"photos:main": "damaged", "photos:v1": "created"}
    assert there.repository("photos").branches() == {}


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_damaged_metadata_stops_the_refs_that_need_it(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path, how: str
) -> None:
    there, _ = target
    root = head(source).root.location
    assert root is not None
    harm(source, pack_key(root.pack), how, tmp_path)
    with Store.open(settings_in(tmp_path / "fresh", store=tmp_path / "home" / "store")) as fresh:
        result = clone(fresh, there, "photos")
    assert outcomes(result) == {"photos:main": "damaged", "photos:v1": "created"}
    assert there.repository("photos").branches() == {}


def test_damage_on_the_way_is_fetched_again(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    far, _ = machine(tmp_path / "far", tmp_path / "home" / "store")
    harmed: list[str] = []

    class Flipping(CountingFolder):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            data = super().get(key, start, length)
            if key.startswith("packs/") and key not in harmed:
                harmed.append(key)
                data = bytes([data[0] ^ 1]) + data[1:]
            return data

    with far:
        far.objects = Flipping(tmp_path / "home" / "store")
        result = clone(far, there)
    assert result.damaged == []
    assert packs(there) == packs(source)
    assert len(harmed) == len(packs(source))


def test_a_branch_that_moves_meanwhile_is_looked_at_again(
    source: Store, target: tuple[Store, CountingFolder], tmp_path: Path
) -> None:
    there, _ = target
    clone(source, there)
    old = head(source)
    fill(tmp_path / "files", {"d1/new": b"newer"})
    bring(source, tmp_path / "files", message="third")
    move = there.refs.move
    raced: list[str] = []

    def racing(repository, kind, name, *arguments, **options):
        if not raced:
            raced.append(name)
            diverge(there, tmp_path)
        return move(repository, kind, name, *arguments, **options)

    there.refs.move = racing  # type: ignore[method-assign]
    result = clone(source, there)
    assert raced == ["main"]
    assert outcomes(result)["photos:main"] == "diverged"
    assert head(there).message == "elsewhere"
    assert head(there).parents[0].id == old.id


def test_what_cannot_be_cloned(source: Store, target: tuple[Store, CountingFolder]) -> None:
    there, _ = target
    with pytest.raises(NotFoundError, match="no repository 'fotos'"):
        clone(source, there, "fotos")
    with pytest.raises(InvalidInputError, match="same store"):
        clone(source, source)
    assert there.repositories() == []


def test_an_empty_repository(tmp_path: Path, target: tuple[Store, CountingFolder]) -> None:
    there, _ = target
    with make_store(tmp_path / "empty") as store:
        result = clone(store, there)
    assert (result.packs_copied, result.refs) == (0, [])
    assert there.repositories() == ["photos"]
    assert there.refs.names("photos", RefKind.BRANCH) == []
