"""Requests to S3 over a network that breaks things: every one, every way."""

from __future__ import annotations

import gc
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from urllib3.util import connection

from tests.support.proxied import always, broken, bucket, proxy, settings, straight
from tests.support.proxy import (
    Answer,
    AnswerAfter,
    Drip,
    Fault,
    Hang,
    LoseReply,
    Proxy,
    Request,
    Reset,
    Slow,
    Truncate,
    Without,
    on,
)
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, S3Server
from versionfs.config import Settings
from versionfs.errors import (
    ConflictError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StorageMissingError,
    StoragePermanentError,
    StorageTransientError,
    VersionFSError,
)
from versionfs.objectstore import (
    ObjectStore,
    ReadsInto,
    never_blocking,
    open_object_store,
    s3,
)
from versionfs.objectstore.retry import Retries

__all__ = ["broken", "bucket", "proxy", "settings", "straight"]

PASSING: list[Fault] = [
    Answer(500),
    Answer(502, "BadGateway"),
    Answer(503, "SlowDown"),
    Answer(429, "TooManyRequests"),
    Answer(400, "RequestTimeout"),
    Answer(400, "BadDigest"),
    AnswerAfter(500),
    AnswerAfter(503, "ServiceUnavailable"),
    Reset(),
    LoseReply(),
]


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*PASSING, Truncate(), Truncate(0)], ids=repr)
def test_a_read_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    data = os.urandom(300_000)
    straight.put("packs/ab/x", data)
    proxy.plan = on("GET", fault, fault)
    assert broken.get("packs/ab/x") == data
    assert proxy.count() == {"GET": 3}
    proxy.plan = on("GET", fault)
    assert broken.get("packs/ab/x", 1000, 200_000) == data[1000:201_000]
    proxy.plan = on("GET", fault)
    assert broken.get("packs/ab/x", 290_000, 200_000) == data[290_000:]
    statistics = broken.statistics()
    assert statistics.requests == {"get": 7}
    assert statistics.retries == 4
    assert statistics.failures == 0


@pytest.mark.parametrize("fault", [*PASSING, Truncate(), Truncate(0), Truncate(150_000)], ids=repr)
def test_a_read_into_memory_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    assert isinstance(broken, ReadsInto)
    data = os.urandom(300_000)
    straight.put("packs/ab/x", data)
    buffer = memoryview(bytearray(200_000))
    for start, length in ((1000, 200_000), (290_000, 10_000)):
        proxy.plan = on("GET", fault)
        assert broken.read_into("packs/ab/x", start, buffer) == length
        assert buffer[:length] == data[start : start + length]
    assert broken.read_into("packs/ab/x", 300_000, buffer) == 0
    with pytest.raises(NotFoundError):
        broken.read_into("packs/ab/y", 0, buffer)
    statistics = broken.statistics()
    assert (statistics.requests["get"], statistics.retries) == (6, 2)
    assert statistics.received_bytes >= 210_000


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_what_failed_holds_no_memory(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    """An error that holds its frame, and that the buffer, would do so until cycles are found."""
    assert isinstance(broken, ReadsInto)
    straight.put("packs/ab/x", bytes(200_000))
    memory = bytearray(200_000)
    alone = sys.getrefcount(memory)
    gc.disable()
    try:
        proxy.plan = on("GET", fault)
        assert broken.read_into("packs/ab/x", 0, memoryview(memory)) == len(memory)
        assert broken.statistics().retries == 1
        assert sys.getrefcount(memory) == alone
    finally:
        gc.enable()


def test_connections_that_were_read_into_memory_are_used_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(broken, ReadsInto)
    straight.put("packs/ab/x", bytes(300_000))

    def never(_reply: object, _seconds: float) -> bytes:
        raise AssertionError("read in the ordinary way")

    made: list[object] = []

    def connect(*args: Any, **named: Any) -> Any:
        made.append(args)
        return real(*args, **named)

    real = connection.create_connection
    monkeypatch.setattr(connection, "create_connection", connect)
    monkeypatch.setattr(s3, "read_body", never)
    for start in range(10):
        assert broken.read_into("packs/ab/x", start, memoryview(bytearray(200_000))) == 200_000
    assert proxy.count() == {"GET": 10}
    assert len(made) == 1


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_question_that_fails_is_asked_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    version = straight.replace("ref", b"value", None)
    if not (isinstance(fault, Answer) and fault.status == 400):  # a HEAD's reply tells no code
        proxy.plan = on("HEAD", fault)
        assert broken.size("ref") == 5
    proxy.plan = on("GET", fault)
    assert broken.read_if_changed("ref", version) is None
    proxy.plan = on("GET", fault)
    assert [info.key for info in broken.list("")] == ["ref"]
    with pytest.raises(NotFoundError):
        broken.get("absent")


def test_a_reply_that_is_late_is_waited_for(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    straight.put("k", b"data")
    proxy.plan = on("GET", Slow(0.3))
    assert broken.get("k") == b"data"
    assert broken.statistics().retries == 0


def test_a_server_that_hangs_is_not_waited_for_without_end(
    proxy: Proxy, settings: Settings, straight: ObjectStore
) -> None:
    straight.put("k", b"data")
    store = open_object_store(settings._replace(timeout_seconds=3))
    proxy.plan = on("GET", Hang())
    assert store.get("k") == b"data"
    assert store.statistics().retries == 1
    proxy.plan = always(Hang())
    with pytest.raises(StorageTransientError, match="cannot be reached: no answer in time"):
        store.get("k")
    assert store.statistics().requests["get"] <= 2 + 4


def test_a_server_that_knows_no_ranges_is_understood(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    straight.put("digits", b"0123456789")
    proxy.plan = always(Without(("range",), ACCESS_KEY, SECRET_KEY))
    assert broken.get("digits", 3, 4) == b"3456"
    assert broken.get("digits", 8, 4) == b"89"
    assert broken.get("digits", 8) == b"89"
    assert broken.get("digits", 10, 1) == b""
    assert isinstance(broken, ReadsInto)
    buffer = memoryview(bytearray(4))
    assert broken.read_into("digits", 3, buffer) == 4
    assert bytes(buffer) == b"3456"
    assert broken.read_into("digits", 8, buffer) == 2
    assert bytes(buffer[:2]) == b"89"
    assert broken.read_into("digits", 10, buffer) == 0


@pytest.mark.parametrize("after", [0, 100_000])
def test_a_reply_that_drips_is_given_up(
    proxy: Proxy, settings: Settings, straight: ObjectStore, after: int
) -> None:
    """No time-out of a socket ever passes: a byte comes each 0.1 s."""
    broken = open_object_store(settings._replace(timeout_seconds=3))
    assert isinstance(broken, ReadsInto)
    data = os.urandom(200_000)
    straight.put("k", data)
    buffer = memoryview(bytearray(len(data)))
    for read in (
        lambda: broken.get("k"),
        lambda: broken.get("k", 0, len(data)),
        lambda: bytes(buffer[: broken.read_into("k", 0, buffer)]),
    ):
        proxy.plan = on("GET", Drip(0.1, after))
        begun = time.monotonic()
        assert read() == data
        assert time.monotonic() - begun < 15
        proxy.plan = always(Drip(0.1, after))
        with pytest.raises(StorageTransientError, match="the reply comes too slowly"):
            read()
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Answer(403, "AccessDenied"), StorageAuthError, "s3:GetObject"),
        (Answer(403, "InvalidAccessKeyId"), StorageAuthError, "AWS_ACCESS_KEY_ID"),
        (Answer(400, "ExpiredToken"), StorageAuthError, "AWS_SESSION_TOKEN"),
        (Answer(403, "RequestTimeTooSkewed"), StorageAuthError, "clock"),
        (Answer(404, "NoSuchKey"), NotFoundError, "no object k"),
        (Answer(404, "NoSuchBucket"), StorageMissingError, "no bucket 'test-"),
        (Answer(400, "InvalidArgument"), StoragePermanentError, "400 InvalidArgument"),
        (Answer(501, "NotImplemented"), StoragePermanentError, "501 NotImplemented"),
        (Answer(400, "AuthorizationHeaderMalformed"), StoragePermanentError, "another region"),
    ],
    ids=repr,
)
def test_a_refusal_is_final_and_told(
    proxy: Proxy, broken: ObjectStore, answer: Answer, error: type[VersionFSError], says: str
) -> None:
    proxy.plan = always(answer)
    for call in (lambda: broken.get("k"), lambda: broken.read("k")):
        proxy.forget()
        with pytest.raises(error) as caught:
            call()
        assert says in str(caught.value)
        assert proxy.count() == {"GET": 1}
    assert broken.statistics().retries == 0


def test_a_write_without_the_permission_is_told(s3_server: S3Server, settings: Settings) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.reader_environment.items():
            patch.setenv(name, value)
        reader = open_object_store(settings)
        for call in (lambda: reader.put("k", b"x"), lambda: reader.replace("k", b"x", None)):
            with pytest.raises(ReadOnlyError, match="cannot be written with these credentials"):
                call()
        assert list(reader.list("")) == []


def test_a_thread_that_must_not_wait_sends_nothing(proxy: Proxy, broken: ObjectStore) -> None:
    with never_blocking(), pytest.raises(RuntimeError, match="must not wait"):
        broken.get("k")
    assert proxy.count() == {}


# -- lists -----------------------------------------------------------------------------------------


def test_a_long_list_comes_in_pages_when_asked_for(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    names = [f"index/{number:04}" for number in range(1205)]
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda name: straight.put(name, b"x"), names))
    removed = straight.read("index/0003")[1]
    straight.remove("index/0003", removed)
    names.remove("index/0003")
    listing = broken.list("index/")
    assert proxy.count() == {}
    assert next(listing).key == names[0]
    assert proxy.count() == {"GET": 1}
    proxy.plan = on("GET", Answer(503, "SlowDown"), Truncate(500), Reset())
    assert [info.key for info in listing] == names[1:]
    assert proxy.count() == {"GET": 5}


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_write_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, tmp_path: Path, fault: Fault
) -> None:
    data = os.urandom(300_000)
    proxy.plan = on("PUT", fault, fault)
    broken.put("packs/ab/x", data)
    assert straight.get("packs/ab/x") == data
    path = tmp_path / "file"
    path.write_bytes(data)
    proxy.plan = on("PUT", fault, fault)
    broken.put_file("packs/ab/y", path)
    assert straight.get("packs/ab/y") == data
    assert not path.exists()
    statistics = broken.statistics()
    assert statistics.requests == {"put": 6}
    assert statistics.sent_bytes == 6 * len(data)
    assert statistics.retries == 4


def test_what_arrives_damaged_is_not_stored(s3_server: S3Server, bucket: str) -> None:
    """The server checks Content-MD5, which all writes carry."""
    client = s3_server.client()
    with pytest.raises(client.exceptions.ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")


def test_all_writes_carry_a_checksum(proxy: Proxy, broken: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    broken.put("a", b"data")
    broken.put_file("b", path)
    version = broken.replace("c", b"data", None)
    broken.remove("c", version)
    assert len(proxy.requests) == 4
    assert all("content-md5" in request.headers for request in proxy.requests)


@pytest.mark.parametrize("lost", [LoseReply(), AnswerAfter(500), AnswerAfter(503, "SlowDown")])
@pytest.mark.parametrize("times", [1, 2])
def test_a_move_that_won_although_its_reply_was_lost_is_a_success(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, lost: Fault, times: int
) -> None:
    proxy.plan = on("PUT", *[lost] * times)
    first = broken.replace("ref", b"one", None)
    assert straight.read("ref") == (b"one", first)
    proxy.plan = on("PUT", *[lost] * times)
    second = broken.replace("ref", b"two", first)
    assert straight.read("ref") == (b"two", second)
    assert proxy.count() == {"PUT": 2 * (times + 1), "GET": 2}
    proxy.plan = on("PUT", *[lost] * times)
    broken.remove("ref", second)
    assert list(straight.list("")) == []
    proxy.plan = on("PUT", *[lost] * times)
    third = broken.replace("ref", b"three", None)  # over a tombstone
    assert straight.read("ref") == (b"three", third)


@pytest.mark.parametrize("lost", [Reset(), LoseReply(), Answer(500)], ids=repr)
def test_a_move_that_somebody_else_won_is_a_conflict(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, lost: Fault
) -> None:
    first = straight.replace("ref", b"one", None)

    def while_trying(request: Request) -> Fault | None:
        if request.method == "PUT" and request.number > 1:
            # Between the attempts somebody moves on, from whatever is there.
            value, version = straight.read("ref")
            if value != b"theirs":
                straight.replace("ref", b"theirs", version)
            return None
        return lost if request.method == "PUT" else None

    proxy.plan = while_trying
    with pytest.raises(ConflictError, match="ref"):
        broken.replace("ref", b"two", first)
    assert straight.get("ref") == b"theirs"
    proxy.plan = on("PUT", lost)
    with pytest.raises(ConflictError, match="ref"):
        broken.remove("ref", first)
    assert straight.get("ref") == b"theirs"


def test_the_reply_of_a_lost_read_back_is_asked_for_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    puts, gets = on("PUT", LoseReply()), on("GET", LoseReply(), Answer(500))
    proxy.plan = lambda request: puts(request) or gets(request)
    version = broken.replace("ref", b"one", None)
    assert straight.read("ref") == (b"one", version)


def test_a_plain_conflict_costs_no_second_request(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    first = straight.replace("ref", b"one", None)
    straight.replace("ref", b"two", first)
    with pytest.raises(ConflictError):
        broken.replace("ref", b"three", first)
    assert proxy.count() == {"PUT": 1}


def test_a_conflict_with_nothing_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    """As Amazon's answer 409 when two requests about one key meet."""
    proxy.plan = on("PUT", *[Answer(409, "ConditionalRequestConflict")] * 2)
    version = broken.replace("ref", b"one", None)
    assert straight.read("ref") == (b"one", version)
    assert proxy.count()["PUT"] == 3


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_move_that_meets_itself_is_not_lost(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, is_new: bool, lands: bool
) -> None:
    """The first PUT is still under way when the second one comes, and lands after it, or never."""
    version = None if is_new else straight.replace("ref", b"one", None)
    faults = [Answer(500), Answer(409, "ConditionalRequestConflict")]

    def plan(request: Request) -> Fault | None:
        if request.method != "PUT":
            return None
        if faults:
            return faults.pop(0)
        if lands and proxy.count()["PUT"] == 3:
            straight.replace("ref", b"two", version)
        return None

    proxy.plan = plan
    moved = broken.replace("ref", b"two", version)
    assert straight.read("ref") == (b"two", moved)
    assert proxy.count()["PUT"] == 3


def test_a_removal_that_meets_itself_is_not_lost(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    version = straight.replace("ref", b"one", None)
    proxy.plan = on("PUT", Answer(500), Answer(409, "ConditionalRequestConflict"))
    broken.remove("ref", version)
    assert list(straight.list("")) == []


def test_that_a_move_which_meets_another_without_end_may_be_done_is_told(
    proxy: Proxy, settings: Settings, bucket: str, straight: ObjectStore
) -> None:
    store = s3.S3Store(bucket, "prefix", settings, retries=Retries("the store", 1.0))
    version = straight.replace("ref", b"one", None)
    hung = on("PUT", Answer(500))
    met = Answer(409, "ConditionalRequestConflict")
    proxy.plan = lambda request: hung(request) or (met if request.method == "PUT" else None)
    with pytest.raises(StorageTransientError, match="it is not known whether ref was written"):
        store.replace("ref", b"two", version)


@pytest.mark.parametrize("was_sent", [True, False])
def test_that_nothing_is_known_of_a_move_is_told(
    proxy: Proxy, settings: Settings, bucket: str, straight: ObjectStore, was_sent: bool
) -> None:
    broken = s3.S3Store(bucket, "prefix", settings, retries=Retries("the store", 1.0))
    version = straight.replace("ref", b"one", None)
    lost = on("PUT", LoseReply())
    proxy.plan = lambda request: (lost(request) if was_sent else None) or Answer(400, "BadDigest")
    with pytest.raises(StorageTransientError) as failed:
        broken.replace("ref", b"two", version)
    assert ("; it is not known whether ref was written" in str(failed.value)) == was_sent
    assert straight.get("ref") == (b"two" if was_sent else b"one")
    lost = on("PUT", LoseReply())
    with pytest.raises(StorageTransientError) as failed:
        broken.remove("ref", straight.read("ref")[1])
    assert ("; it is not known whether ref was removed" in str(failed.value)) == was_sent


@pytest.mark.parametrize("status", [404, 409, 412])
def test_each_of_three_answers_means_that_the_race_is_lost(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, status: int
) -> None:
    version = straight.replace("ref", b"zero", None)
    straight.replace("ref", b"one", version)
    proxy.plan = on("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.replace("ref", b"two", version)
    proxy.plan = on("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.replace("ref", b"two", None)
    proxy.plan = on("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.remove("ref", version)


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_removal_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    straight.put("packs/ab/x", b"x")
    proxy.plan = on("DELETE", fault)
    broken.remove("packs/ab/x")
    assert list(straight.list("")) == []
