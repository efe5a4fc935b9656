"""Layers that are not needed any more go in a thread, while others come."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from versionfs.workspace.discards import Discards
from versionfs.workspace.extents import extent_key, layer_of_key
from versionfs.workspace.layers import forget_layers
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import Table


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with Table(tmp_path) as table:
        yield table


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    staging = Staging(tmp_path / "staging")
    yield staging
    staging.close()


class _Waiting(deque[tuple[int, int]]):
    """Lets others run between the steps of whoever walks it."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for item in super().__iter__():
            yield item
            self.walked.set()
            self.goes_on.wait(0.02)

    walked = threading.Event()
    goes_on = threading.Event()


def test_layers_that_come_while_others_go(table: Table, staging: Staging) -> None:
    discards = Discards(table, staging, table.sync)
    waiting = discards._waiting = _Waiting()
    waiting.extend((0, layer) for layer in range(10))
    failed: list[BaseException] = []

    def drain() -> None:
        try:
            discards.drain()
        except RuntimeError as error:
            failed.append(error)

    worker = threading.Thread(target=drain)
    worker.start()
    assert waiting.walked.wait(10)
    discards.add(10)
    waiting.goes_on.set()
    worker.join()
    discards.close()
    assert not failed
    assert not discards


def test_extents_go_before_the_layer_that_they_are_found_by(
    table: Table, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.create(1)
    table.apply([(extent_key(1, 0), b"12345678"), (extent_key(2, 0), b"12345678")])
    found: list[int] = []

    def remove_all(_layers: object) -> None:
        found.extend(layer_of_key(key) for key, _ in table.scan(b"x"))

    monkeypatch.setattr(staging, "remove_all", remove_all)
    forget_layers(table, staging, [1])
    assert found == [2]


def test_a_full_table_does_not_keep_layers(
    table: Table, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.create(1)
    table.apply([(extent_key(1, 0), b"12345678")])

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(table, "apply", full)
        with pytest.raises(OSError, match="full"):
            forget_layers(table, staging, [1])
    assert list(staging.layers()) == []
    forget_layers(table, staging, [1])
    assert list(table.scan(b"x")) == []
