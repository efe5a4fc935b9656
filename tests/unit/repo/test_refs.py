"""Branches, tags and repositories: made, moved and removed by any number of processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import fill
from tests.support.stores import ROOT, bring, file_entry, head, settings_in, write_directory
from versionfs.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    VersionFSError,
)
from versionfs.repo import RefKind, Repository, Store
from versionfs.repo.refs import decode_ref, encode_ref
from versionfs.types import Location, NodeRef, PackId, Ref


@pytest.fixture
def repository(store: Store, source: Path) -> Repository:
    fill(source, {"a": b"1"})
    bring(store, source)
    return store.repository("photos")


def reflog(store: Store, branch: str = "main") -> list[dict[str, Any]]:
    keys = [info.key for info in store.objects.list(f"repos/photos/reflog/{branch}/")]
    return [json.loads(store.objects.get(key)) for key in keys]


def test_branches_and_tags_come_and_go(store: Store, repository: Repository) -> None:
    made = head(store)
    repository.create_branch("dev", made)
    repository.create_tag("v1", made)
    assert list(repository.branches()) == ["dev", "main"]
    assert list(repository.tags()) == ["v1"]
    assert repository.branch("dev").commit == repository.tag("v1").commit == made.ref
    assert repository.describe() == {made.id: ["dev", "main", "@v1"]}
    with pytest.raises(AlreadyExistsError, match="branch 'dev'"):
        repository.create_branch("dev", made)
    with pytest.raises(AlreadyExistsError, match="tag 'v1'"):
        repository.create_tag("v1", made)
    repository.delete_branch("dev")
    repository.delete_tag("v1")
    assert (list(repository.branches()), list(repository.tags())) == (["main"], [])
    for gone in (repository.delete_branch, repository.branch):
        with pytest.raises(NotFoundError):
            gone("dev")
    for gone_tag in (repository.delete_tag, repository.tag):
        with pytest.raises(NotFoundError):
            gone_tag("v1")
    repository.create_branch("dev", made)


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "-x", ".x", "x y", "ü", "x" * 201])
def test_names_are_checked(store: Store, repository: Repository, name: str) -> None:
    for make in (repository.create_branch, repository.create_tag):
        with pytest.raises(InvalidInputError):
            make(name, head(store))
    with pytest.raises(InvalidInputError):
        store.create_repository(name)


def test_every_move_is_in_the_reflog(store: Store, repository: Repository, source: Path) -> None:
    first = head(store)
    fill(source, {"b": b"2"})
    second = bring(store, source).commit
    assert second is not None
    repository.delete_branch("main")
    moves = [
        (m["old"] and m["old"]["commit"], m["new"] and m["new"]["commit"]) for m in reflog(store)
    ]
    assert moves == [
        (None, first.id.hex()),
        (first.id.hex(), second.id.hex()),
        (second.id.hex(), None),
    ]


def test_the_version_of_all_refs_changes_with_each_of_them(
    store: Store, repository: Repository, source: Path
) -> None:
    seen = [repository.refs_version()]
    assert repository.refs_version() == seen[0]
    made = head(store)
    other = source.parent / "other"
    fill(other, {"c": b"3"})
    store.create_repository("other").create_branch("main", made)
    assert repository.refs_version() == seen[0]
    for change in (
        lambda: repository.create_tag("v1", made),
        lambda: repository.create_branch("dev", made),
        lambda: bring(store, other),
        lambda: repository.delete_tag("v1"),
        lambda: repository.delete_branch("dev"),
    ):
        change()
        assert repository.refs_version() not in seen
        seen.append(repository.refs_version())


def test_a_ref_moves_only_from_where_it_was_read(store: Store, repository: Repository) -> None:
    made = head(store)
    _, version = store.refs.read("photos", RefKind.BRANCH, "main")
    repository.advance("main", made.ref, version, old=made.ref, reason="same commit, new nonce")
    with pytest.raises(ConflictError):
        repository.advance("main", made.ref, version, old=made.ref, reason="late")
    with pytest.raises(ConflictError):
        repository.advance("main", made.ref, None, old=None, reason="as if new")
    with pytest.raises(ConflictError):
        store.refs.delete("photos", RefKind.BRANCH, "main", version)
    assert repository.branch("main").commit == made.ref


def test_a_move_whose_reply_was_lost_counts_though_somebody_went_on(
    store: Store, repository: Repository, source: Path
) -> None:
    """The store says that it lost; its commit is below the head that won on top of it."""
    first, version = store.refs.read(repository.name, RefKind.BRANCH, "main")
    fill(source, {"new": b"x"})
    mine = bring(store, source).commit
    fill(source, {"newer": b"y"})
    theirs = bring(store, source).commit
    assert mine is not None
    assert theirs is not None
    ref = repository.advance("main", mine.ref, version, old=first.commit, reason="again")
    assert ref.commit == theirs.ref
    repository.create_branch("other", repository.commit(first.commit))
    _, at = store.refs.read(repository.name, RefKind.BRANCH, "other")
    repository.advance("other", mine.ref, at, old=first.commit, reason="move")
    with pytest.raises(ConflictError, match="moved from"):
        repository.advance("other", theirs.ref, at, old=first.commit, reason="lost")


def in_processes(home: Path, count: int, code: str) -> list[str]:
    script = (
        "import sys; from tests.support.stores import *; from versionfs.errors import *\n"
        "from versionfs.repo import *\n"
        "number = int(sys.argv[2])\n"
        "with Store.open(settings_in(Path(sys.argv[1]))) as store:\n"
        "    repository = store.repository('photos')\n"
        "    print('ready', flush=True); sys.stdin.readline()\n" + code
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(home), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in processes]


def test_no_commit_of_many_processes_is_lost(
    store: Store, home: Path, repository: Repository
) -> None:
    first = head(store)
    store.close()
    shown = in_processes(
        home,
        4,
        "    for turn in range(15):\n"
        "        while True:\n"
        "            ref, version = store.refs.read('photos', RefKind.BRANCH, 'main')\n"
        "            parent = repository.commit(ref.commit); writer = store.metadata_writer()\n"
        "            made = write_commit(writer, root=parent.root, parents=[parent], author='a',\n"
        "                message=f'{number} {turn}', time_ns=parent.time_ns + 1, metadata={})\n"
        "            writer.finish(); made = writer.resolve(made)\n"
        "            try: repository.advance('main', made, version, old=parent.ref, reason='t')\n"
        "            except ConflictError: continue\n"
        "            break\n"
        "    print('done')\n",
    )
    assert shown == ["done"] * 4
    with Store.open(settings_in(home)) as again:
        history = list(again.repository("photos").history(head(again)))
    assert sorted(c.message for c in history[:-1]) == sorted(
        f"{number} {turn}" for number in range(4) for turn in range(15)
    )
    assert history[-1] == first
    assert [c.number for c in history] == list(range(61, 0, -1))


def test_one_of_many_processes_makes_a_tag(
    store: Store, home: Path, repository: Repository
) -> None:
    store.close()
    shown = in_processes(
        home,
        4,
        "    made = 0\n"
        "    for turn in range(20):\n"
        "        try: repository.create_tag(f't{turn}', head(store)); made += 1\n"
        "        except AlreadyExistsError: pass\n"
        "    print(made)\n",
    )
    assert sum(map(int, shown)) == 20


# -- repositories ----------------------------------------------------------------------------------


def test_repositories_come_and_go(store: Store, repository: Repository) -> None:
    store.create_repository("a")
    store.create_repository("Z_9.x-y")
    assert store.repositories() == ["Z_9.x-y", "a", "photos"]
    with pytest.raises(AlreadyExistsError, match="'a'"):
        store.create_repository("a")
    store.delete_repository("photos")
    assert store.repositories() == ["Z_9.x-y", "a"]
    with pytest.raises(NotFoundError):
        store.repository("photos")
    with pytest.raises(NotFoundError):
        store.delete_repository("photos")
    assert list(store.objects.list("repos/photos/")) == []
    again = store.create_repository("photos")
    assert again.branches() == {}


def test_a_repository_that_is_near_is_suggested(store: Store) -> None:
    with pytest.raises(NotFoundError, match="did you mean photos"):
        store.repository("photo")


def test_the_same_data_in_two_repositories_is_stored_once(
    store: Store, repository: Repository
) -> None:
    before = store.statistics()
    other = store.create_repository("other")
    other.create_branch("main", head(store))
    after = store.statistics()
    assert (before.packs, before.chunks) == (after.packs, after.chunks)
    assert (after.repositories, after.branches, after.commits) == (2, 2, 1)


def test_statistics_count_what_is_there(store: Store, repository: Repository, source: Path) -> None:
    fill(source, {"b": b"x" * 100_000, "c": b"x" * 100_000})
    bring(store, source)
    repository.create_tag("v1", head(store))
    found = store.statistics()
    assert (found.repositories, found.branches, found.tags, found.commits) == (1, 1, 1, 2)
    assert found.files == 1 + 3
    assert found.logical_bytes == 1 + 1 + 200_000
    assert found.unique_bytes == 1 + 100_000
    assert found.chunks == 2
    sizes = [info.size for info in store.objects.list("packs/")]
    assert (found.packs, found.stored_bytes) == (len(sizes), sum(sizes))
    assert 0 < found.metadata_bytes < found.stored_bytes
    assert found.dedup_ratio == pytest.approx(200_002 / 100_001)
    assert found.compression_ratio > 10


# -- damage ----------------------------------------------------------------------------------------

REF = Ref(
    NodeRef(b"c" * 32, b"s" * 16, Location(PackId(b"p" * 32), 16, 100, 0, 90)), "01NONCE", 1234
)


def test_a_ref_comes_back() -> None:
    assert decode_ref(encode_ref(REF), "key") == REF


def test_no_damage_to_a_ref_is_a_crash_or_a_location_that_cannot_be() -> None:
    data = encode_ref(REF)
    for at in range(len(data)):
        for value in (0x00, 0x20, 0x2D, 0x39, 0x5B, 0x7D, 0xFF):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            for variant in (changed, data[:at]):
                try:
                    ref = decode_ref(variant, "key")
                except VersionFSError:
                    continue
                commit = ref.commit
                assert (len(commit.id), len(commit.stamp), len(commit.location.pack)) == (
                    32,
                    16,
                    32,
                )
                assert all(0 <= number < 2**32 for number in commit.location[1:])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"junk", b"\xff", b'{"version": 9}'])
def test_a_damaged_branch_is_named(store: Store, repository: Repository, data: bytes) -> None:
    (Path(store.settings.store) / "repos" / "photos" / "branches" / "main").write_bytes(data)
    for read in (repository.branches, lambda: repository.resolve("main", None)):
        with pytest.raises(VersionFSError, match="branches/main"):
            read()


def test_a_ref_to_a_commit_that_is_gone_is_damage(store: Store, repository: Repository) -> None:
    lost = NodeRef(b"c" * 32, b"s" * 16, Location(PackId(b"p" * 32), 16, 100, 0, 90))
    store.refs.move("photos", RefKind.BRANCH, "lost", lost, None, reason="test")
    with pytest.raises(CorruptionError) as caught:
        repository.resolve("lost", None)
    assert caught.value.pack == (b"p" * 32).hex()


def test_a_directory_entry_of_nothing_is_not_a_commit(store: Store, repository: Repository) -> None:
    tree = write_directory(store, {b"x": file_entry(b"x")})
    store.refs.move("photos", RefKind.BRANCH, "odd", tree, None, reason="test")
    with pytest.raises(CorruptionError):
        repository.resolve("odd", None)
