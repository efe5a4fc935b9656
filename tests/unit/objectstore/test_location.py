"""From what names a store to the object store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from versionfs.config import Settings, load_settings
from versionfs.errors import InvalidInputError
from versionfs.objectstore import LocalStore, open_object_store


def named(store: str) -> Settings:
    return load_settings({"VERSIONFS_HOME": "/nowhere"})._replace(store=store)


@pytest.mark.parametrize(
    "text", ["/data/a%20b", "file:///data/a%2520b", "file://localhost/data/a%2520b"]
)
def test_a_local_store_is_named_by_path_or_url(text: str) -> None:
    store = open_object_store(named(text))
    assert isinstance(store, LocalStore)
    assert store.root == Path("/data/a%20b")
    assert store.is_local


def test_the_url_of_a_local_store_names_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "with space and ü")
    again = open_object_store(named(store.url))
    assert isinstance(again, LocalStore)
    assert again.root == store.root


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b_c-1.2/", "s3://bucket/a/b_c-1.2"),
        ("S3://Bucket.of-us/a", "s3://Bucket.of-us/a"),
    ],
)
def test_a_store_on_s3_is_a_bucket_and_perhaps_a_prefix(text: str, url: str) -> None:
    store = open_object_store(named(text))
    assert store.url == url
    assert repr(store) == f"S3Store({url!r})"
    assert not store.is_local


@pytest.mark.parametrize(
    "text",
    [
        *("file://server/share", "file://", "gs://bucket/x", "http://host/x", "s3://[/x"),
        *("s3://", "s3:///x", "s3://ab", "s3://bucket/a//b", "s3://bucket/.x", "s3://bucket/a b"),
        *("s3://bucket:80/x", "s3://bucket/x?y", "s3://bucket/x#y", "s3://-bucket/x"),
    ],
)
def test_what_names_no_store_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        open_object_store(named(text))


@pytest.mark.parametrize(
    "text",
    [
        *("s3://id:hunter2@bucket/x", "https://hunter2@host/x", "s3://b/x?secret=hunter2"),
        *("s3://id:abc/hunter2@bucket/x", "s3://id:hunter2", "s3://bucket/id:hunter2@x"),
        *("s3://id:abc/hunter2", "file://id:hunter2/x@y"),
    ],
)
def test_a_url_with_a_password_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_object_store(named(text))
    assert "hunter2" not in str(caught.value)
    assert "AWS_" in str(caught.value)


def test_what_names_no_folder_is_not_repeated() -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_object_store(named("file://hunter2/x"))
    assert "hunter2" not in str(caught.value)


def test_a_local_store_costs_no_import_of_boto3(tmp_path: Path) -> None:
    code = (
        "import sys; from versionfs.config import load_settings\n"
        "from versionfs.repo import Store\n"
        "Store.create(load_settings({'VERSIONFS_HOME': sys.argv[1]})).close()\n"
        "print([m for m in sys.modules if m.startswith(('boto', 'urllib3'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
