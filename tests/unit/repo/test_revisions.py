"""From ``BRANCH@REV`` to a commit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.stores import as_directory, file_entry, make_store, write_directory
from versionfs.errors import AmbiguousError, InvalidInputError, NotFoundError, VersionFSError
from versionfs.repo import RefKind, Repository, Store, write_commit
from versionfs.types import Commit

Committed = Callable[..., Commit]


@pytest.fixture
def repository(store: Store) -> Repository:
    return store.repository("photos")


@pytest.fixture
def commit(store: Store, repository: Repository) -> Committed:
    """Commits to a branch at a time, which is text in local time or nanoseconds."""

    def make(
        message: str, when: str | int = 1, branch: str = "main", merged: Commit | None = None
    ) -> Commit:
        root = as_directory(
            store, write_directory(store, {b"f": file_entry(b"f", message.encode())})
        )
        time_ns = when
        if isinstance(time_ns, str):
            time_ns = int(datetime.fromisoformat(time_ns).astimezone().timestamp()) * 10**9
        try:
            head = repository.resolve(branch, None)
            _, version = store.refs.read("photos", RefKind.BRANCH, branch)
        except NotFoundError:
            head, version = None, None
        parents = [parent for parent in (head, merged) if parent is not None]
        writer = store.metadata_writer()
        ref = write_commit(
            writer,
            root=root,
            parents=parents,
            author="ada",
            message=message,
            time_ns=time_ns,
            metadata={"key": message},
        )
        writer.finish()
        ref = writer.resolve(ref)
        old = None if head is None else head.ref
        repository.advance(branch, ref, version, old=old, reason="test")
        return repository.commit(ref)

    return make


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def change(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()


def subject(repository: Repository, branch: str | None, revision: str | None) -> str:
    return repository.resolve(branch, revision).message


def test_a_commit_says_what_was_committed(repository: Repository, commit: Committed) -> None:
    first = commit("one\n\nbody", 5)
    second = commit("two ü", 7)
    assert (first.number, first.parents, first.subject) == (1, (), "one")
    assert (second.number, second.parents) == (2, (first.ref,))
    assert (second.author, second.time_ns, second.metadata) == ("ada", 7, {"key": "two ü"})
    assert repository.commit(second.ref) == second
    assert list(repository.history(second)) == [second, first]


def test_steps_back_from_the_head(repository: Repository, commit: Committed) -> None:
    for number in range(5):
        commit(str(number))
    for revision, expected in {
        None: "4",
        "head": "4",
        "~0": "4",
        "~": "3",
        "~1": "3",
        "~~": "2",
        "~4": "0",
        "head~2": "2",
        "~1~2": "1",
        "~00003": "1",
    }.items():
        assert subject(repository, "main", revision) == expected, revision
    for revision in ("~5", "~" + "9" * 30, "~9999999999999999999~9999999999999999999"):
        with pytest.raises(NotFoundError, match="only 4 before it"):
            repository.resolve("main", revision)


def test_prefixes_of_ids(repository: Repository, commit: Committed) -> None:
    commits = [commit(str(number)) for number in range(6)]
    for one in commits:
        text = one.id.hex()
        for revision in (text, text[:12], text[:12].upper()):
            assert repository.resolve("main", revision) == one
            assert repository.resolve(None, revision) == one
    text = commits[3].id.hex()
    assert subject(repository, "main", f"{text[:20]}~2") == "1"
    for revision in (text[:3], "0" * 64, text + "0"):
        with pytest.raises(NotFoundError):
            repository.resolve("main", revision)
    with pytest.raises(NotFoundError, match="no commit"):
        repository.resolve("main", "ffff" * 15)


def test_a_prefix_that_fits_two_commits_is_ambiguous(
    repository: Repository, commit: Committed
) -> None:
    seen: dict[str, Commit] = {}
    for number in range(3000):
        made = commit(str(number), branch=f"b{number % 2}")
        other = seen.setdefault(made.id.hex()[:4], made)
        if (
            other != made
            and (other.number - made.number) % 1 == 0
            and other.message != made.message
        ):
            break
    else:
        pytest.fail("no two of 3,000 ids share 4 digits")
    prefix = made.id.hex()[:4]
    with pytest.raises(AmbiguousError) as caught:
        repository.resolve(None, prefix)
    assert made.id.hex()[:12] in caught.value.message
    assert other.id.hex()[:12] in caught.value.message
    assert caught.value.exit_code == InvalidInputError.exit_code
    longer = made.id.hex()[:20]
    assert repository.resolve(None, longer) == made
    branches = {int(c.message) % 2 for c in (made, other)}
    if len(branches) == 2:
        assert repository.resolve(f"b{int(made.message) % 2}", prefix) == made


def test_a_branch_does_not_know_commits_of_another(
    repository: Repository, commit: Committed
) -> None:
    mine = commit("mine")
    theirs = commit("theirs", branch="dev")
    with pytest.raises(NotFoundError):
        repository.resolve("main", theirs.id.hex()[:12])
    assert repository.resolve(None, theirs.id.hex()[:12]) == theirs
    merge = commit("merge", merged=theirs)
    assert repository.resolve("main", theirs.id.hex()[:12]) == theirs
    assert list(repository.history(merge)) == [merge, mine]
    assert subject(repository, "main", "~1") == "mine"


def test_tags(repository: Repository, commit: Committed) -> None:
    first = commit("first")
    commit("second")
    other = commit("other", branch="dev")
    repository.create_tag("v1.0", first)
    repository.create_tag("v2", other)
    assert repository.resolve("main", "v1.0") == first
    assert repository.resolve(None, "v1.0") == first
    assert repository.resolve(None, "v2") == other
    with pytest.raises(NotFoundError, match="not on the branch main"):
        repository.resolve("main", "v2")
    with pytest.raises(NotFoundError, match=r"no tag|no revision"):
        repository.resolve(None, "v3")
    with pytest.raises(NotFoundError, match="only 0 before it"):
        repository.resolve("main", "v1.0~1")


def test_a_tag_comes_before_a_commit_with_that_prefix(
    repository: Repository, commit: Committed
) -> None:
    first = commit("first")
    second = commit("second")
    name = second.id.hex()[:8]
    repository.create_tag(name, first)
    assert repository.resolve("main", name) == first
    assert repository.resolve(None, name) == first
    assert repository.resolve("main", second.id.hex()[:9]) == second


def test_a_date_is_the_end_of_that_day_in_local_time(
    repository: Repository, commit: Committed, zone: Callable[[str], None]
) -> None:
    zone("Europe/Berlin")  # winter time begins 2026-10-25 03:00, summer time 2026-03-29 02:00
    commit("before", "2026-03-27T12:00:00")
    commit("last second", "2026-03-28T23:59:59")
    commit("short day", "2026-03-29T00:00:00")
    commit("short day's end", "2026-03-29T23:59:59")
    commit("next day", "2026-03-30T00:00:00")
    commit("long day", "2026-10-25T23:59:59")
    commit("after", "2026-10-26T00:00:00")
    for revision, expected in {
        "2026-03-28": "last second",
        "2026-03-29": "short day's end",
        "2026-03-30": "next day",
        "2026-10-24": "next day",
        "2026-10-25": "long day",
        "2026-10-26": "after",
        "2030-01-01": "after",
        "2026-03-29~1": "short day",
        "2026-03-28T23:59": "last second",
        "2026-03-28T23:58": "before",
        "2026-03-28T23:59:58": "before",
        "2026-03-28T23:59:59": "last second",
        "2026-03-28T22:59:59Z": "last second",
        "2026-03-28T22:59:58Z": "before",
        "2026-03-29T04:00+05:00": "short day",
        "2026-03-29T04:00+0502": "before",
        "9999-12-30": "after",
    }.items():
        assert subject(repository, "main", revision) == expected, revision
    zone("America/New_York")
    assert subject(repository, "main", "2026-03-28") == "short day"
    with pytest.raises(NotFoundError, match="no commit as old as"):
        repository.resolve("main", "2026-03-26")


def test_an_hour_that_comes_twice_ends_with_its_second_time_or_first(
    repository: Repository, commit: Committed, zone: Callable[[str], None]
) -> None:
    zone("Europe/Berlin")
    berlin = ZoneInfo("Europe/Berlin")
    for fold in (0, 1):
        moment = datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=berlin)
        commit(f"fold {fold}", int(moment.timestamp()) * 10**9)
    assert subject(repository, "main", "2026-10-25T02:30+02:00") == "fold 0"
    assert subject(repository, "main", "2026-10-25T02:30+01:00") == "fold 1"
    assert subject(repository, "main", "2026-10-25T02:30") in {"fold 0", "fold 1"}


@pytest.mark.parametrize(
    "revision",
    ["2026-02-30", "2026-13-01", "0000-01-01", "2026-01-01T24:00", "2026-01-01T10:00+99:00"],
)
def test_days_and_times_that_do_not_exist(
    repository: Repository, commit: Committed, revision: str
) -> None:
    commit("only")
    with pytest.raises(VersionFSError) as caught:
        repository.resolve("main", revision)
    assert isinstance(caught.value, InvalidInputError | NotFoundError)


def test_head_steps_and_dates_need_a_branch(repository: Repository, commit: Committed) -> None:
    commit("only")
    for revision in ("head", "~1", "2026-01-01", None):
        with pytest.raises(InvalidInputError, match="needs a branch"):
            repository.resolve(None, revision)


def test_names_that_are_near_are_suggested(repository: Repository, commit: Committed) -> None:
    made = commit("only")
    repository.create_branch("development", made)
    with pytest.raises(NotFoundError, match="did you mean development"):
        repository.resolve("developmet", None)
    with pytest.raises(NotFoundError, match="main"):
        repository.resolve("zzz", None)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with make_store(tmp_path_factory.mktemp("fuzzed") / "home") as store:
        root = as_directory(store, write_directory(store, {}))
        writer = store.metadata_writer()
        ref = write_commit(
            writer, root=root, parents=[], author="a", message="m", time_ns=5, metadata={}
        )
        writer.finish()
        repository = store.repository("photos")
        made = repository.commit(writer.resolve(ref))
        repository.create_branch("main", made)
        repository.create_tag("v1", made)
        yield repository


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["main", None, "v1"]),
    st.text(max_size=20) | st.from_regex(r"\A[0-9a-fT:~Z.+-]{0,24}\Z"),
)
@example("main", "9999-12-31")
@example("main", "0001-01-01T00:00")
@example("main", "9999-12-31T23:59:59-14:00")
@example(None, "a:b")
@example(None, "2026-01-01T10:00Z~")
def test_any_text_is_a_commit_or_an_error_of_ours(
    fuzzed: Repository, branch: str | None, revision: str
) -> None:
    with contextlib.suppress(VersionFSError):
        assert fuzzed.resolve(branch, revision).message == "m"
