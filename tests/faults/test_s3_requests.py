"""An S3 store behind a network that breaks things: every request, every way."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.proxy import (
    Answer,
    AnswerAfter,
    Fault,
    Hang,
    LoseReply,
    Plan,
    Proxy,
    Request,
    Reset,
    Slow,
    Truncate,
    Without,
    on,
)
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, S3Server
from versionfs.config import Settings, load_settings
from versionfs.errors import (
    ConflictError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StoragePermanentError,
    StorageTransientError,
    VersionFSError,
)
from versionfs.objectstore import (
    ObjectStore,
    never_blocking,
    open_object_store,
    probe_conditional_writes,
)
from versionfs.objectstore.s3 import MULTIPART_BYTES
from versionfs.objectstore.s3upload import PART_BYTES

Opener = Callable[..., ObjectStore]


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.bucket()


@pytest.fixture
def settings(
    s3_server: S3Server,
    proxy: Proxy,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """Leads to the server by way of the proxy."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return replace(
        load_settings({**os.environ, "VERSIONFS_HOME": str(tmp_path / "home")}),
        store=f"s3://{bucket}/prefix",
        s3_endpoint=proxy.endpoint,
        timeout_seconds=20,
    )


@pytest.fixture
def broken(settings: Settings) -> ObjectStore:
    """The store by way of the proxy."""
    return open_object_store(settings)


@pytest.fixture
def straight(settings: Settings) -> ObjectStore:
    """The same store without the proxy: another machine."""
    return open_object_store(replace(settings, s3_endpoint=None))


def once(method: str, *faults: Fault) -> Plan:
    return on(method, *faults)


def always(fault: Fault) -> Plan:
    return lambda _request: fault


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
    proxy.plan = once("GET", fault, fault)
    assert broken.get("packs/ab/x") == data
    assert proxy.count() == {"GET": 3}
    proxy.plan = once("GET", fault)
    assert broken.get("packs/ab/x", 1000, 200_000) == data[1000:201_000]
    proxy.plan = once("GET", fault)
    assert broken.get("packs/ab/x", 290_000, 200_000) == data[290_000:]
    statistics = broken.statistics()
    assert statistics.requests == {"get": 7}
    assert statistics.retries == 4
    assert statistics.failures == 0


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_question_that_fails_is_asked_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    version = straight.replace("ref", b"value", None)
    if not (isinstance(fault, Answer) and fault.status == 400):  # a HEAD's reply tells no code
        proxy.plan = once("HEAD", fault)
        assert broken.size("ref") == 5
    proxy.plan = once("GET", fault)
    assert broken.read_if_changed("ref", version) is None
    proxy.plan = once("GET", fault)
    assert [info.key for info in broken.list("")] == ["ref"]
    with pytest.raises(NotFoundError):
        broken.get("absent")


def test_a_reply_that_is_late_is_waited_for(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore
) -> None:
    straight.put("k", b"data")
    proxy.plan = once("GET", Slow(0.3))
    assert broken.get("k") == b"data"
    assert broken.statistics().retries == 0


def test_a_server_that_hangs_is_not_waited_for_without_end(
    proxy: Proxy, settings: Settings, straight: ObjectStore
) -> None:
    straight.put("k", b"data")
    store = open_object_store(replace(settings, timeout_seconds=3))
    proxy.plan = once("GET", Hang())
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


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Answer(403, "AccessDenied"), StorageAuthError, "s3:GetObject"),
        (Answer(403, "InvalidAccessKeyId"), StorageAuthError, "AWS_ACCESS_KEY_ID"),
        (Answer(400, "ExpiredToken"), StorageAuthError, "AWS_SESSION_TOKEN"),
        (Answer(403, "RequestTimeTooSkewed"), StorageAuthError, "clock"),
        (Answer(404, "NoSuchKey"), NotFoundError, "no object k"),
        (Answer(404, "NoSuchBucket"), NotFoundError, "no bucket 'test-"),
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
    proxy.plan = once("GET", Answer(503, "SlowDown"), Truncate(500), Reset())
    assert [info.key for info in listing] == names[1:]
    assert proxy.count() == {"GET": 5}


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_write_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, tmp_path: Path, fault: Fault
) -> None:
    data = os.urandom(300_000)
    proxy.plan = once("PUT", fault, fault)
    broken.put("packs/ab/x", data)
    assert straight.get("packs/ab/x") == data
    path = tmp_path / "file"
    path.write_bytes(data)
    proxy.plan = once("PUT", fault, fault)
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
    proxy.plan = once("PUT", *[lost] * times)
    first = broken.replace("ref", b"one", None)
    assert straight.read("ref") == (b"one", first)
    proxy.plan = once("PUT", *[lost] * times)
    second = broken.replace("ref", b"two", first)
    assert straight.read("ref") == (b"two", second)
    assert proxy.count() == {"PUT": 2 * (times + 1), "GET": 2}
    proxy.plan = once("PUT", *[lost] * times)
    broken.remove("ref", second)
    assert list(straight.list("")) == []
    proxy.plan = once("PUT", *[lost] * times)
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
    proxy.plan = once("PUT", lost)
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


@pytest.mark.parametrize("status", [404, 409, 412])
def test_each_of_three_answers_means_that_the_race_is_lost(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, status: int
) -> None:
    version = straight.replace("ref", b"one", None)
    proxy.plan = once("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.replace("ref", b"two", version)
    proxy.plan = once("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.replace("ref", b"two", None)
    proxy.plan = once("PUT", Answer(status, "Whatever"))
    with pytest.raises(ConflictError):
        broken.remove("ref", version)


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_removal_that_fails_is_tried_again(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, fault: Fault
) -> None:
    straight.put("packs/ab/x", b"x")
    proxy.plan = once("DELETE", fault)
    broken.remove("packs/ab/x")
    assert list(straight.list("")) == []


# -- large files -----------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * (MULTIPART_BYTES >> 20) + b"end")
    return path


def test_a_large_file_goes_in_parts_that_are_tried_again_by_themselves(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, large: Path
) -> None:
    data = large.read_bytes()
    parts = -(-len(data) // PART_BYTES)
    puts = on("PUT", Answer(500), LoseReply(), Reset())
    posts = on("POST", Answer(503, "SlowDown"), LoseReply())
    proxy.plan = lambda request: puts(request) or posts(request)
    broken.put_file("packs/ab/x", large)
    assert straight.get("packs/ab/x") == data
    assert not large.exists()
    assert proxy.count()["PUT"] == parts + 3
    assert 2 <= proxy.most_at_once <= 4


def test_a_large_upload_whose_end_was_acknowledged_in_vain_is_done(
    proxy: Proxy, broken: ObjectStore, straight: ObjectStore, large: Path
) -> None:
    data = large.read_bytes()
    proxy.plan = on("POST", LoseReply(), path="uploadId")
    broken.put_file("packs/ab/x", large)
    assert straight.get("packs/ab/x") == data


def test_a_large_upload_that_fails_leaves_nothing_behind(
    proxy: Proxy,
    broken: ObjectStore,
    straight: ObjectStore,
    s3_server: S3Server,
    bucket: str,
    large: Path,
) -> None:
    proxy.plan = on("PUT", Answer(403, "AccessDenied"), path="partNumber=3")
    with pytest.raises(ReadOnlyError):
        broken.put_file("packs/ab/x", large)
    assert large.exists()
    assert list(straight.list("")) == []
    assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=bucket)


# -- away and back ---------------------------------------------------------------------------------


def test_offline_costs_the_budget_once_and_work_goes_on_when_the_server_is_back(
    proxy: Proxy, settings: Settings, straight: ObjectStore
) -> None:
    straight.put("k", b"data")
    store = open_object_store(replace(settings, timeout_seconds=1))
    proxy.plan = always(Reset())
    with pytest.raises(StorageTransientError, match="cannot be reached"):
        store.get("k")
    assert len(proxy.requests) > 2
    for _ in range(3):
        proxy.forget()
        with pytest.raises(StorageTransientError, match="tried once"):
            store.get("k")
        assert len(proxy.requests) == 1
    assert store.statistics().failures == 4
    proxy.plan = None
    assert store.get("k") == b"data"
    proxy.plan = once("GET", Reset(), Reset())
    assert store.get("k") == b"data"


def test_a_server_that_dies_and_comes_back_interrupts_nothing(
    s3_server: S3Server, straight: ObjectStore
) -> None:
    straight.put("before", b"1")
    s3_server.kill()
    with ThreadPoolExecutor(3) as executor:
        reading = executor.submit(straight.get, "before")
        writing = executor.submit(straight.put, "after", b"2")
        moving = executor.submit(straight.replace, "ref", b"3", None)
        s3_server.start()
        assert reading.result() == b"1"
        writing.result()
        version = moving.result()
    assert straight.get("after") == b"2"
    assert straight.read("ref") == (b"3", version)
    assert straight.statistics().retries > 0


# -- servers without conditions --------------------------------------------------------------------


def test_a_server_with_conditional_writes_passes_the_probe(
    proxy: Proxy, broken: ObjectStore, s3_server: S3Server, bucket: str
) -> None:
    probe_conditional_writes(broken)
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)
    proxy.plan = once("PUT", LoseReply(), Answer(500))
    probe_conditional_writes(broken)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Without(("if-match", "if-none-match"), ACCESS_KEY, SECRET_KEY), "ignored If-None-Match"),
        (Without(("if-none-match",), ACCESS_KEY, SECRET_KEY), "ignored If-None-Match"),
        (Without(("if-match",), ACCESS_KEY, SECRET_KEY), "ignored If-Match"),
        (Answer(501, "NotImplemented"), "501 NotImplemented"),
        (Answer(412, "PreconditionFailed"), "refused a first write"),
    ],
    ids=["neither", "no If-None-Match", "no If-Match", "not implemented", "always refused"],
)
def test_a_server_without_conditional_writes_is_refused_with_the_reason(
    proxy: Proxy, broken: ObjectStore, s3_server: S3Server, bucket: str, fault: Fault, says: str
) -> None:
    proxy.plan = lambda request: fault if request.method == "PUT" else None
    with pytest.raises(StoragePermanentError, match=says) as caught:
        probe_conditional_writes(broken)
    assert "use Amazon S3" in str(caught.value)
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)


# -- credentials -----------------------------------------------------------------------------------


def test_no_secret_is_told_or_logged(
    proxy: Proxy,
    settings: Settings,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "versionfs")
    told = []
    for wrong in ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, {"AWS_ACCESS_KEY_ID": "hunter2"}):
        for name, value in {**s3_server.environment, **wrong}.items():
            monkeypatch.setenv(name, value)
        store = open_object_store(settings)
        for call in (
            lambda store=store: store.get("k"),
            lambda store=store: store.size("k"),
            lambda store=store: store.put("k", b"x"),
            lambda store=store: list(store.list("")),
        ):
            with pytest.raises(StorageAuthError) as caught:
                call()
            told += [str(caught.value), repr(store), repr(settings)]
    proxy.plan = once("GET", Answer(500), Reset(), Answer(403, "AccessDenied"))
    with pytest.raises(StorageAuthError) as caught:
        open_object_store(settings).get("k")
    told += [str(caught.value), caplog.text]
    secrets = ("hunter2", SECRET_KEY, "Signature=", "X-Amz")
    assert not [secret for secret in secrets for text in told if secret in text]


@pytest.mark.parametrize("where", ["setting", "environment"])
def test_an_endpoint_with_a_password_is_refused_without_repeating_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = "http://id:hunter2@127.0.0.1:1"
    if where == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        settings = replace(settings, s3_endpoint=None)
    else:
        settings = replace(settings, s3_endpoint=url)
    with pytest.raises(VersionFSError, match="holds a name or password") as caught:
        open_object_store(settings).get("k")
    assert "hunter2" not in str(caught.value)


def test_without_credentials_it_is_said_where_they_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageAuthError, match="AWS_PROFILE"):
        open_object_store(settings).get("k")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageAuthError, match="profile"):
        open_object_store(settings).get("k")


def test_credentials_that_were_refused_are_looked_up_anew(
    settings: Settings,
    straight: ObjectStore,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A mount lives longer than what some tools write into ~/.aws/credentials."""
    straight.put("k", b"data")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    lines = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    file.write_text(lines.format("too-old", SECRET_KEY))
    store = open_object_store(settings)
    with pytest.raises(StorageAuthError):
        store.get("k")
    file.write_text(lines.format(ACCESS_KEY, SECRET_KEY))
    fresh = open_object_store(settings)
    assert fresh.get("k") == b"data"
    # Known ones are refused from now on; the file has others.
    proxy.plan = once("GET", Answer(400, "ExpiredToken"))
    file.write_text(lines.format("versionfs-reader", "not-to-be-seen-either"))
    assert fresh.get("k") == b"data"
    assert "versionfs-reader" in proxy.requests[-1].headers["authorization"]
