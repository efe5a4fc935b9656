"""An S3 store behind a proxy that breaks things, and the same store without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Fault, Plan, Proxy
from tests.support.seaweed import S3Server
from versionfs.config import Settings, load_settings
from versionfs.objectstore import ObjectStore, open_object_store


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
    return load_settings({**os.environ, "VERSIONFS_HOME": str(tmp_path / "home")})._replace(
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
    return open_object_store(settings._replace(s3_endpoint=None))


def always(fault: Fault) -> Plan:
    return lambda _request: fault


__all__ = ["always", "broken", "bucket", "proxy", "settings", "straight"]
