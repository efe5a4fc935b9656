"""S3 servers that are away, lack something, or refuse the credentials; uploads in parts."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.folders import fill
from tests.support.proxied import always, broken, bucket, proxy, settings, straight
from tests.support.proxy import (
    Answer,
    Fault,
    LoseReply,
    Proxy,
    Request,
    Reset,
    Without,
    on,
)
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.stores import at, bring
from versionfs.config import Settings
from versionfs.errors import (
    AlreadyExistsError,
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
    open_object_store,
    probe_conditional_writes,
)
from versionfs.objectstore.s3 import MULTIPART_BYTES
from versionfs.objectstore.s3upload import PART_BYTES
from versionfs.repo import Store

__all__ = ["broken", "bucket", "proxy", "settings", "straight"]


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
    # This server says yes a second time; Amazon forgets the upload.
    proxy.plan = on("POST", LoseReply(), Answer(404, "NoSuchUpload"), path="uploadId")
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
    store = open_object_store(settings._replace(timeout_seconds=1))
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
    proxy.plan = on("GET", Reset(), Reset())
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
    proxy.plan = on("PUT", LoseReply(), Answer(500))
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


def test_no_store_is_made_where_writers_would_overwrite_each_other(
    proxy: Proxy, settings: Settings, straight: ObjectStore
) -> None:
    proxy.plan = always(Without(("if-match", "if-none-match"), ACCESS_KEY, SECRET_KEY))
    with pytest.raises(StoragePermanentError, match="ignored If-None-Match"):
        Store.create(settings)
    assert list(straight.list("")) == []


def test_what_a_dead_probe_left_is_not_in_the_way_of_a_store(
    settings: Settings, straight: ObjectStore
) -> None:
    straight.put("conditional-writes-0123456789abcdef", b"left")
    with pytest.raises(NotFoundError, match="no store at"):
        Store.open(settings)
    Store.open_or_create(settings).close()
    Store.open(settings).close()
    straight.put("other", b"x")
    straight.remove("versionfs.json")
    with pytest.raises(AlreadyExistsError, match="is not empty"):
        Store.create(settings)


def test_a_store_that_another_machine_makes_meanwhile_is_opened(
    proxy: Proxy, settings: Settings
) -> None:
    made: list[str] = []

    def plan(request: Request) -> None:
        if "list-type=2" in request.path and not made:
            with Store.create(settings._replace(s3_endpoint=None)) as store:
                made.append(store.id)

    proxy.plan = plan
    with Store.open_or_create(settings) as store:
        assert [store.id] == made
    assert proxy.count()["PUT"] == 0


def test_a_bucket_that_is_gone_does_not_count_as_an_empty_store(
    proxy: Proxy, settings: Settings, source: Path
) -> None:
    """Its branches are not deleted, and its packs are not damaged: nobody knows."""
    fill(source, {"a": b"1" * 100})
    with Store.create(settings) as store:
        store.create_repository("photos")
        bring(store, source)
        entry = at(store, b"a")
        assert entry is not None
    with Store.open(settings._replace(cache_dir=source.parent / "other")) as store:
        photos = store.repository("photos")
        store.refcache.hold()
        assert list(photos.branches()) == ["main"]
        proxy.plan = always(Answer(404, "NoSuchBucket"))
        for ask in (
            store.refcache.poll,
            photos.tags,
            lambda: photos.tag("v1"),
            lambda: store.contents.open(entry).read(0, 100),
        ):
            with pytest.raises(StorageMissingError, match="there is no bucket"):
                ask()
        with pytest.raises(StorageMissingError, match="there is no bucket"):
            Store.open_or_create(settings)
        proxy.plan = None
        assert list(photos.branches()) == ["main"]
        assert store.contents.open(entry).read(0, 100) == b"1" * 100


def test_the_name_of_a_server_may_be_a_word(
    settings: Settings, straight: ObjectStore, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    """Only Amazon has a name for each bucket; ``bucket.localhost`` is nobody."""
    straight.put("k", b"data")
    named = proxy.endpoint.replace("127.0.0.1", "localhost")
    assert open_object_store(settings._replace(s3_endpoint=named)).get("k") == b"data"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", named)
    assert open_object_store(settings._replace(s3_endpoint=None)).get("k") == b"data"
    assert proxy.count() == {"GET": 2}


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
    proxy.plan = on("GET", Answer(500), Reset(), Answer(403, "AccessDenied"))
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
        settings = settings._replace(s3_endpoint=None)
    else:
        settings = settings._replace(s3_endpoint=url)
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
    proxy.plan = on("GET", Answer(400, "ExpiredToken"))
    file.write_text(lines.format("versionfs-reader", "not-to-be-seen-either"))
    assert fresh.get("k") == b"data"
    assert "versionfs-reader" in proxy.requests[-1].headers["authorization"]
