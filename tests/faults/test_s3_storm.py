"""Imports, reads and mounts through a network that breaks requests at random, from a seed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.proxy import (
    Answer,
    AnswerAfter,
    Fault,
    LoseReply,
    Proxy,
    Request,
    Reset,
    Slow,
    Truncate,
)
from tests.support.s3 import MakeMachine
from tests.support.seaweed import S3Server
from tests.support.stores import bring
from versionfs.config import Settings, load_settings
from versionfs.errors import StorageTransientError
from versionfs.repo import Store
from versionfs.transfer import clone, export


class Storm:
    """Breaks a part of all requests; tells which faults came."""

    def __init__(self, seed: int, part: float) -> None:
        self._rng = Random(seed)
        self._part = part
        self._lock = threading.Lock()
        self.came: Counter[str] = Counter()

    def __call__(self, request: Request) -> Fault | None:
        with self._lock:
            if self._rng.random() >= self._part:
                return None
            faults: list[Fault] = [
                Answer(500),
                Answer(503, "SlowDown"),
                AnswerAfter(500),
                Reset(),
                LoseReply(),
                Truncate(self._rng.randrange(300_000)),
                Slow(0.1),
                Slow(0.6),  # later than is waited for, at the time-out that these tests set
            ]
            fault = self._rng.choice(faults)
            self.came[type(fault).__name__] += 1
            return fault


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def there(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A store as a machine sees it that the storm does not reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({**os.environ, "VERSIONFS_HOME": str(tmp_path / "there")})
    settings = settings._replace(store=f"s3://{s3_server.bucket()}/store")
    with Store.create(settings) as store:
        store.create_repository("photos")
    return settings


def in_the_storm(there: Settings, home: Path, proxy: Proxy, *, timeout: float) -> Settings:
    here = load_settings({**os.environ, "VERSIONFS_HOME": str(home)})
    return here._replace(store=there.store, s3_endpoint=proxy.endpoint, timeout_seconds=timeout)


def change(source: Path, rng: Random, number: int) -> None:
    fill(
        source,
        {
            "large": rng.randbytes(700_000),
            **{f"d{rng.randrange(5)}/f{rng.randrange(40)}": rng.randbytes(3000) for _ in range(9)},
            "number": b"%d" % number,
        },
        age=False,
    )


@pytest.mark.parametrize("seed", range(4))
def test_what_a_storm_lets_through_is_right(
    there: Settings, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    """Every import is acknowledged or fails; the commits are those acknowledged, each once."""
    rng = Random(seed)
    source = tmp_path / "source"
    # The budget is so small, in half of the runs, that some imports fail.
    storm = Storm(seed, part=(0.35, 0.5)[seed % 2])
    proxy.plan = storm
    timeout = (30.0, 1.5)[seed % 2]
    done: dict[str, dict[bytes, object]] = {}
    failed: set[str] = set()
    settings = in_the_storm(there, tmp_path / "here", proxy, timeout=timeout)
    for number in range(8):
        change(source, rng, number)
        try:
            with Store.open(settings) as store:
                result = bring(store, source, message=f"import {number}")
        except StorageTransientError:
            failed.add(f"import {number}")
            continue
        assert result.commit is not None
        done[result.commit.id.hex()] = dict(describe(source))
    assert done
    assert sum(storm.came.values()) > 5, storm.came

    with Store.open(there) as store:
        photos = store.repository("photos")
        history = list(photos.history(photos.branch("main").commit))
        messages = [commit.message for commit in history]
        assert len(messages) == len(set(messages))
        # Of a failure it is not known whether it was done; of a success it is.
        assert {commit.id.hex() for commit in history} >= set(done)
        assert {c.message for c in history if c.id.hex() not in done} <= failed
        for commit in history:
            if commit.id.hex() in done:
                out = tmp_path / "out" / commit.id.hex()
                out.parent.mkdir(exist_ok=True)
                export(store, commit.root, out)
                assert dict(describe(out)) == done[commit.id.hex()]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_in_a_storm_is_right_or_an_error(
    there: Settings, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    source = tmp_path / "source"
    rng = Random(seed)
    for number in range(3):
        change(source, rng, number)
        with Store.open(there) as store:
            bring(store, source)
    expected = describe(source)
    proxy.plan = Storm(seed, part=(0.2, 0.5, 0.5)[seed])
    read = 0
    for attempt in range(8):
        timeout = 30 if seed == 0 or attempt == 7 else 1.5
        if attempt == 7:
            proxy.plan = Storm(seed, part=0.2)
        home = tmp_path / ("warm" if attempt % 2 else f"cold{attempt}")
        out = tmp_path / f"out{attempt}"
        try:
            settings = in_the_storm(there, home, proxy, timeout=timeout)
            with Store.open(settings) as store:
                photos = store.repository("photos")
                commit = photos.resolve("main", None)
                export(store, commit.root, out)
        except StorageTransientError:
            continue
        assert describe(out) == expected
        read += 1
    assert read >= (8 if seed == 0 else 1)


def test_a_clone_in_a_storm_copies_all(there: Settings, proxy: Proxy, tmp_path: Path) -> None:
    rng = Random(7)
    source = tmp_path / "source"
    for number in range(3):
        change(source, rng, number)
        with Store.open(there) as store:
            bring(store, source)
    storm = Storm(7, part=0.3)
    proxy.plan = storm
    away = in_the_storm(there, tmp_path / "here", proxy, timeout=30)
    with Store.open(away) as origin:
        target = away._replace(store=str(tmp_path / "copy"), s3_endpoint=None)
        with Store.create(target) as copy:
            clone(origin, copy, None)
            photos = copy.repository("photos")
            export(copy, photos.resolve("main", None).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)
    assert storm.came


@pytest.mark.mount
def test_a_mount_in_a_storm_shows_what_is_right_or_an_error(
    machines: MakeMachine, proxy: Proxy, tmp_path: Path
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    rng = Random(5)
    source = tmp_path / "source"
    for number in range(2):
        change(source, rng, number)
        ada.ok("import", source, "set")
    expected = describe(source)
    data = bob.mount("--timeout", "3", "--refresh", "0.2")
    proxy.plan = Storm(5, part=0.4)
    right = wrong = 0
    for _ in range(20):
        for name, seen in expected.items():
            path = os.fsencode(data / "set/main") + b"/" + name
            try:
                if os.path.isdir(source / os.fsdecode(name)):
                    found = {os.path.join(name, each) for each in os.listdir(path)}
                    assert found == {
                        each for each in expected if each and os.path.dirname(each) == name
                    }
                else:
                    with open(path, "rb") as file:
                        assert file.read() == seen.content
                right += 1
            except OSError:
                wrong += 1
        if number < 4:
            number += 1
            change(source, rng, number)
            expected_next = describe(source)
            try:
                proxy.plan = None
                ada.ok("import", source, "set")
                bob.ok("fetch")
                expected = expected_next
            finally:
                proxy.plan = Storm(number, part=0.4)
    assert right > wrong
