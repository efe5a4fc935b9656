"""Refs of a store behind a network: asked once, looked at again cheaply, known when it is away."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.support import commit, settings_at
from tests.support.unreachable import Unreachable, link_of, remote_store
from versionfs.errors import (
    ConflictError,
    NotFoundError,
    StorageAuthError,
    StorageError,
    StoragePermanentError,
    StorageTransientError,
)
from versionfs.objectstore import ObjectInfo, Version, WouldBlock, never_blocking
from versionfs.repo import RefKind, Store, held, lastseen
from versionfs.types import Ref

REF = "repos/photos/branches/main"
MARKER = "repos/photos/repo.json"


@pytest.fixture
def origin(tmp_path: Path):
    """The machine that writes."""
    with Store.create(settings_at(tmp_path / "one")) as store:
        commit(store, {b"a": b"1"})
        yield store


@pytest.fixture
def folder(origin: Store) -> Path:
    return Path(origin.settings.store)


@pytest.fixture
def store(folder: Path, tmp_path: Path):
    """The machine that reads over the network."""
    with remote_store(folder, tmp_path / "two") as store:
        yield store


@pytest.fixture
def mounted(store: Store) -> Store:
    store.refcache.hold()
    return store


def short_of(store: Store, branch: str = "main") -> bytes:
    return store.repository("photos").branch(branch).commit.id


def requests(store: Store) -> int:
    return sum(link_of(store).requests.values())


def age(store: Store) -> None:
    """Lets the time pass for which listings and absences are believed."""
    cache = store.refcache._held
    for prefix, (names, _) in cache._listings.items():
        cache._listings[prefix] = names, 0.0
    for key, value in list(cache._values.items()):
        if value.found is None:
            cache._values[key] = held.Value(None, value.asked, 0.0)


# -- commands --------------------------------------------------------------------------------------


def test_a_command_sees_every_move_at_once(origin: Store, store: Store) -> None:
    for number in range(3):
        made = commit(origin, {b"a": b"%d" % number})
        assert short_of(store) == made.id


def test_a_command_without_network_shows_what_was_seen_last(
    origin: Store, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    repository = store.repository("photos")
    repository.create_tag("v1", repository.resolve("main", None))
    assert list(repository.branches()) == ["main"]
    assert list(repository.tags()) == ["v1"]
    assert store.repositories() == ["photos"]
    seen = short_of(store)
    commit(origin, {b"a": b"2"})
    link_of(store).down = True
    with caplog.at_level(logging.WARNING):
        assert short_of(store) == seen
        assert store.repositories() == ["photos"]
        assert list(repository.branches()) == ["main"]
        assert repository.tag("v1").commit.id == seen
        with pytest.raises(NotFoundError, match="has no branch 'nope'"):
            repository.branch("nope")
    assert len(caplog.records) == 1
    assert "cannot be reached; showing what was last seen at 20" in caplog.text
    before = requests(store)
    short_of(store)
    assert requests(store) == before, "a store that is away is not asked again and again"


def test_what_was_never_seen_is_an_error_without_network(store: Store) -> None:
    link_of(store).down = True
    with pytest.raises(StorageTransientError):
        store.repositories()
    with pytest.raises(StorageTransientError):
        store.repository("photos")


def test_another_process_knows_what_was_seen(store: Store, folder: Path, tmp_path: Path) -> None:
    seen = short_of(store)
    store.close()
    with remote_store(folder, tmp_path / "two") as again:
        link_of(again).down = True
        assert short_of(again) == seen


def test_a_store_that_is_back_is_asked_again(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lastseen, "_DOWN_SECONDS", 0.0)
    short_of(store)
    link_of(store).down = True
    short_of(store)
    made = commit(origin, {b"a": b"2"})
    link_of(store).down = False
    with caplog.at_level(logging.INFO):
        assert short_of(store) == made.id
    assert "can be reached again" in caplog.text


def test_writing_needs_the_store(store: Store) -> None:
    repository = store.repository("photos")
    head = repository.resolve("main", None)
    link_of(store).down = True
    with pytest.raises(StorageTransientError):
        repository.create_branch("dev", head)
    with pytest.raises(StorageTransientError):
        store.create_repository("texts")


def test_a_version_seen_before_the_network_went_still_loses_a_race(
    origin: Store, store: Store
) -> None:
    short_of(store)
    link_of(store).down = True
    ref, version = store.refs.read("photos", RefKind.BRANCH, "main")
    link_of(store).down = False
    commit(origin, {b"a": b"2"})
    with pytest.raises(ConflictError):
        store.repository("photos").advance("main", ref.commit, version, old=ref.commit, reason="t")


def test_a_lost_race_tells_who_won(origin: Store, store: Store) -> None:
    repository = store.repository("photos")
    old, version = store.refs.read("photos", RefKind.BRANCH, "main")
    made = commit(origin, {b"a": b"2"})
    with pytest.raises(ConflictError) as caught:
        repository.advance("main", old.commit, version, old=old.commit, reason="test")
    message = str(caught.value)
    assert f"photos/main moved from {old.commit.id.hex()[:12]} to {made.id.hex()[:12]}" in message
    assert "test@host, 2023-11-14" in message
    assert "versionfs log photos/main" in message
    origin.repository("photos").delete_branch("main")
    with pytest.raises(ConflictError, match="photos/main was deleted by somebody else"):
        repository.advance("main", old.commit, version, old=old.commit, reason="test")


def test_many_refs_are_read_at_once(origin: Store, store: Store) -> None:
    head = origin.repository("photos").resolve("main", None)
    for number in range(20):
        origin.repository("photos").create_branch(f"b{number:02}", head)
    link_of(store).latency = 0.02
    assert len(store.repository("photos").branches()) == 21
    assert link_of(store).most_at_once == 8


def test_a_store_that_was_opened_before_opens_without_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Unreachable(folder)
    monkeypatch.setattr("versionfs.repo.store.open_object_store", lambda _: objects)
    monkeypatch.setattr("versionfs.repo.store._is_taken", lambda _: False)
    settings = settings_at(tmp_path / "two")
    objects.down = True
    with pytest.raises(StorageTransientError):
        Store.open(settings)
    objects.down = False
    with Store.open(settings) as store:
        store_id = store.id
    objects.down = True
    with Store.open(settings) as store:
        assert store.id == store_id


# -- mounts ----------------------------------------------------------------------------------------


def test_a_mount_asks_once(origin: Store, mounted: Store) -> None:
    seen = short_of(mounted)
    before = requests(mounted)
    commit(origin, {b"a": b"2"})
    for _ in range(5):
        assert short_of(mounted) == seen
    assert requests(mounted) == before


def test_a_poll_is_one_request_for_each_ref_in_use(origin: Store, mounted: Store) -> None:
    short_of(mounted)
    before = requests(mounted)
    assert mounted.refcache.poll() == set()
    assert requests(mounted) == before + 2  # the repository's marker, and the branch
    made = commit(origin, {b"a": b"2"})
    assert mounted.refcache.poll("texts") == set()
    assert mounted.refcache.poll() == {"photos"}
    before = requests(mounted)
    assert short_of(mounted) == made.id
    assert requests(mounted) == before
    assert mounted.refcache.poll() == set()


def test_a_poll_of_many_refs_is_one_listing(origin: Store, mounted: Store) -> None:
    head = origin.repository("photos").resolve("main", None)
    for number in range(40):
        origin.repository("photos").create_branch(f"b{number:02}", head)
    mounted.repository("photos").branches()
    mounted.refcache.poll()  # the first listing, to compare with
    link_of(mounted).requests.clear()
    assert mounted.refcache.poll() == set()
    assert link_of(mounted).requests == {"list": 1, "get": 1}
    made = commit(origin, {b"a": b"2"}, branch="b07")
    origin.repository("photos").delete_branch("b08")
    assert mounted.refcache.poll() == {"photos"}
    assert short_of(mounted, "b07") == made.id
    with pytest.raises(NotFoundError):
        short_of(mounted, "b08")


def test_a_poll_finds_what_was_deleted(origin: Store, mounted: Store) -> None:
    short_of(mounted)
    origin.delete_repository("photos")
    assert mounted.refcache.poll() == {"photos"}
    with pytest.raises(NotFoundError):
        mounted.repository("photos")


def test_what_is_not_there_is_believed_for_a_moment_only(origin: Store, mounted: Store) -> None:
    assert mounted.refcache.names("repos/photos/branches/") == ["main"]
    with pytest.raises(NotFoundError):
        short_of(mounted, "dev")
    before = requests(mounted)
    with pytest.raises(NotFoundError):
        short_of(mounted, "dev")
    assert requests(mounted) == before
    made = commit(origin, {b"a": b"2"}, branch="dev")
    age(mounted)
    assert short_of(mounted, "dev") == made.id
    assert mounted.refcache.names("repos/photos/branches/") == ["dev", "main"]


def test_a_branch_that_a_listing_misses_has_moved(origin: Store, mounted: Store) -> None:
    repository = mounted.repository("photos")
    commit(origin, {b"a": b"2"}, branch="dev")
    assert list(repository.branches()) == ["dev", "main"]
    version = repository.refs_version()
    origin.repository("photos").delete_branch("dev")
    age(mounted)
    assert list(repository.branches()) == ["main"]
    assert repository.refs_version() != version
    assert mounted.refcache.poll() == {"photos"}


def test_many_tags_do_not_keep_a_mount_from_seeing_that_its_branch_moved(
    origin: Store, mounted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_KEPT", 8)
    head = origin.repository("photos").resolve("main", None)
    short_of(mounted)
    for number in range(20):
        origin.repository("photos").create_tag(f"v{number}", head)
        assert mounted.repository("photos").tag(f"v{number}").commit == head.ref
    assert len(mounted.refcache._held._values) <= 8
    commit(origin, {b"a": b"2"})
    assert mounted.refcache.poll() == {"photos"}
    for number in range(20):
        commit(origin, {b"a": b"2"}, branch=f"b{number}")
        short_of(mounted, f"b{number}")
    assert len(mounted.refcache._held._values) <= 8


def test_names_that_are_not_there_make_room_before_tags(
    origin: Store, mounted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_KEPT", 16)
    head = origin.repository("photos").resolve("main", None)
    for number in range(12):
        origin.repository("photos").create_tag(f"v{number}", head)
    mounted.refcache.read_many([f"repos/photos/branches/none{number}" for number in range(6)])
    for number in range(12):
        assert mounted.repository("photos").tag(f"v{number}").commit == head.ref
    assert {f"repos/photos/tags/v{number}" for number in range(12)} <= set(
        mounted.refcache._held._values
    )
    assert len(mounted.refcache._held._values) == 16


def test_branches_used_less_recently_than_any_tag_are_kept_however_many(
    mounted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although only a few values are looked at to make room."""
    monkeypatch.setattr(held, "_KEPT", 1000)
    branches = [f"repos/photos/branches/b{number}" for number in range(450)]
    tags = [f"repos/photos/tags/v{number}" for number in range(650)]
    for at, key in enumerate(branches + tags):
        mounted.refcache._held.keep(key, (b"x", Version(key)), float(at))
    assert len(mounted.refcache._held._values) == 1000
    # One for each hundred that were in the way.
    assert len(set(branches) - set(mounted.refcache._held._values)) <= 5


def test_the_event_loop_never_waits(mounted: Store) -> None:
    with never_blocking():
        rounds = 0
        while True:
            try:
                branches = mounted.repository("photos").branches()
            except WouldBlock as wait:
                rounds += 1
                thread = threading.Thread(target=wait.fetch)
                thread.start()
                thread.join()
            else:
                break
    assert list(branches) == ["main"]
    assert rounds == 3  # the marker, the listing, all refs


def test_a_mount_without_network_goes_on(
    origin: Store, mounted: Store, caplog: pytest.LogCaptureFixture
) -> None:
    seen = short_of(mounted)
    link_of(mounted).down = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(StorageTransientError):
                mounted.refcache.poll()
        assert short_of(mounted) == seen
        assert len(caplog.records) == 1
        link_of(mounted).down = False
        assert mounted.refcache.poll() == set()
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    made = commit(origin, {b"a": b"2"})
    assert mounted.refcache.poll() == {"photos"}
    assert short_of(mounted) == made.id


def test_a_writer_that_lost_in_a_mount_sees_who_won(origin: Store, mounted: Store) -> None:
    old, version = mounted.refs.read("photos", RefKind.BRANCH, "main")
    made = commit(origin, {b"a": b"2"})
    with pytest.raises(ConflictError, match=made.id.hex()[:12]):
        mounted.repository("photos").advance(
            "main", old.commit, version, old=old.commit, reason="test"
        )
    assert short_of(mounted) == made.id


# -- fetch -----------------------------------------------------------------------------------------


def test_look_tells_what_moved_since_this_machine_looked(origin: Store, store: Store) -> None:
    first = store.refcache.look()
    assert list(first) == [REF]
    assert first[REF][0] is None
    assert store.refcache.look() == {}
    commit(origin, {b"a": b"2"})
    commit(origin, {b"a": b"2"}, branch="dev")
    commit(origin, {b"a": b"2"}, repository="texts")
    moved = store.refcache.look("photos")
    assert list(moved) == ["repos/photos/branches/dev", REF]
    assert moved[REF][0] == first[REF][1]
    origin.repository("photos").delete_branch("dev")
    assert list(store.refcache.look()) == [
        "repos/photos/branches/dev",
        "repos/texts/branches/main",
    ]
    with pytest.raises(NotFoundError):
        store.refcache.look("nope")
    link_of(store).down = True
    with pytest.raises(StorageTransientError):
        store.refcache.look()


def test_what_a_look_saw_is_known_without_network(origin: Store, store: Store) -> None:
    made = commit(origin, {b"a": b"2"}, repository="texts")
    store.refcache.look()
    store.refcache.look("photos")
    link_of(store).down = True
    assert store.repositories() == ["photos", "texts"]
    assert store.repository("texts").branch("main").commit == made.ref
    with pytest.raises(NotFoundError):
        store.repository("texts").branch("dev")


def test_a_local_store_is_asked_each_time(origin: Store) -> None:
    origin.refcache.hold()
    assert not origin.refcache.holds
    first = short_of(origin)
    assert commit(origin, {b"a": b"2"}).id == short_of(origin) != first
    assert origin.refcache.poll() == set()


# -- what decides a write --------------------------------------------------------------------------


def test_a_fresh_value_is_what_the_store_has_now(origin: Store, mounted: Store) -> None:
    short_of(mounted)
    made = commit(origin, {b"a": b"2"})
    ref, _ = mounted.refs.read("photos", RefKind.BRANCH, "main", fresh=True)
    assert ref.commit.id == made.id == short_of(mounted)


def test_no_fresh_value_is_recalled(origin: Store, store: Store) -> None:
    short_of(store)
    link_of(store).down = True
    short_of(store)
    with pytest.raises(StorageTransientError):
        store.refs.read("photos", RefKind.BRANCH, "main", fresh=True)
    with pytest.raises(StorageTransientError):
        store.refs.read("photos", RefKind.BRANCH, "nope", fresh=True)
    link_of(store).down = False
    made = commit(origin, {b"a": b"2"})  # the store counts as away for some seconds yet
    ref, _ = store.refs.read("photos", RefKind.BRANCH, "main", fresh=True)
    assert ref.commit.id == made.id == short_of(store), "an answer tells that the store is back"


def test_a_conflict_shows_who_won_right_after_an_outage(origin: Store, store: Store) -> None:
    short_of(store)
    old, version = store.refs.read("photos", RefKind.BRANCH, "main")
    link_of(store).down = True
    short_of(store)
    link_of(store).down = False
    made = commit(origin, {b"a": b"2"})
    with pytest.raises(ConflictError, match=made.id.hex()[:12]):
        store.repository("photos").advance(
            "main", old.commit, version, old=old.commit, reason="test"
        )
    assert short_of(store) == made.id


def test_a_branch_that_moved_meanwhile_is_not_deleted(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.refs._log

    def moving(*arguments: object) -> None:
        log(*arguments)  # type: ignore[arg-type]
        commit(origin, {b"a": b"2"})

    monkeypatch.setattr(store.refs, "_log", moving)
    with pytest.raises(ConflictError, match="it was not deleted"):
        store.repository("photos").delete_branch("main")
    assert list(origin.repository("photos").branches()) == ["main"]
    monkeypatch.setattr(store.refs, "_log", log)
    store.repository("photos").delete_branch("main")
    with pytest.raises(NotFoundError):
        origin.repository("photos").branch("main")


@pytest.mark.parametrize("has_tokens", [True, False])
def test_a_listing_finds_what_moved_before_it_was_first_held(
    origin: Store, folder: Path, tmp_path: Path, has_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = origin.repository("photos").resolve("main", None)
    for number in range(20):
        origin.repository("photos").create_branch(f"b{number:02}", head)
    with remote_store(folder, tmp_path / "two") as store:
        store.repository("photos").branches()
    with remote_store(folder, tmp_path / "two") as store:
        store.refcache.hold()
        link = link_of(store)
        tokens = _tokens(link) if has_tokens else None
        if tokens is not None:
            monkeypatch.setattr(link, "list", tokens)
        for number in range(19):
            short_of(store, f"b{number:02}")
        made = commit(origin, {b"a": b"2"}, branch="b19")
        store.refcache.poll()
        link.down = True
        assert short_of(store, "b19") == head.id, "recalled"
        link.down = False
        store.refcache.poll()
        age_recalled(store)
        assert short_of(store, "b19") == made.id


def _tokens(link: Unreachable) -> Callable[[str], Iterator[ObjectInfo]]:
    """Returns a listing with versions, as S3 has them."""
    plain = link.list

    def listing(prefix: str) -> Iterator[ObjectInfo]:
        for info in plain(prefix):
            yield info._replace(token=str(link.inner.read(info.key)[1]))

    return listing


def age_recalled(store: Store) -> None:
    """Lets the time pass for which a recalled value is believed."""
    cache = store.refcache._held
    for key, value in list(cache._values.items()):
        if value.until != math.inf:
            cache._values[key] = value._replace(until=0.0)


def test_a_branch_made_while_its_repository_is_deleted_goes_too(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = origin.repository("photos").resolve("main", None)
    remove = store.refcache.remove
    made: list[Ref] = []

    def removing(key: str) -> None:
        remove(key)
        if key == REF and not made:
            made.append(origin.repository("photos").create_branch("late", head))

    monkeypatch.setattr(store.refcache, "remove", removing)
    store.delete_repository("photos")
    assert made
    assert list(origin.objects.list("repos/photos/branches/")) == []
    assert origin.repositories() == []


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_branch_made_just_before_the_marker_goes_is_not_left_over(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch, is_made_anew: bool
) -> None:
    head = origin.repository("photos").resolve("main", None)
    remove = store.refcache.remove

    def removing(key: str, expected: Version | None = None) -> None:
        if key == MARKER:
            origin.repository("photos").create_branch("late", head)
        remove(key, expected)
        if key == MARKER and is_made_anew:
            origin.create_repository("photos")

    monkeypatch.setattr(store.refcache, "remove", removing)
    store.delete_repository("photos")
    left = [info.key for info in origin.objects.list("repos/photos/branches/")]
    assert left == (["repos/photos/branches/late"] if is_made_anew else [])


@pytest.mark.parametrize("kind", RefKind)
def test_a_ref_that_is_made_while_its_repository_goes_is_taken_back(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch, kind: RefKind
) -> None:
    repository = store.repository("photos")
    head = repository.resolve("main", None)
    replace_ = store.refcache.replace

    def replacing(key: str, data: bytes, expected: Version | None) -> Version:
        origin.delete_repository("photos")
        return replace_(key, data, expected)

    monkeypatch.setattr(store.refcache, "replace", replacing)
    make = repository.create_tag if kind is RefKind.TAG else repository.create_branch
    with pytest.raises(NotFoundError, match="was deleted meanwhile"):
        make("late", head)
    assert list(origin.objects.list(f"repos/photos/{kind.value}/")) == []


@pytest.mark.parametrize("error", [StorageTransientError, StorageAuthError, StoragePermanentError])
def test_a_ref_that_is_made_is_told_as_made_although_the_marker_cannot_be_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: type[StorageError]
) -> None:
    repository = store.repository("photos")
    head = repository.resolve("main", None)

    def has_marker(_name: str) -> bool:
        raise error("refused")

    monkeypatch.setattr(store.refcache, "has_marker", has_marker)
    assert repository.create_branch("late", head).commit == head.ref
    assert repository.branch("late").commit == head.ref


def test_the_refs_of_a_repository_are_deleted_at_once(origin: Store, store: Store) -> None:
    head = origin.repository("photos").resolve("main", None)
    for number in range(30):
        origin.repository("photos").create_tag(f"t{number}", head)
    link_of(store).latency = 0.02
    store.delete_repository("photos")
    assert link_of(store).most_at_once == 8
    assert list(origin.objects.list("repos/")) == []
