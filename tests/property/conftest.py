"""One store for all examples of a module: ids depend on content, so they share it without harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stores import TINY_CHUNKS, make_store
from versionfs.repo import Store


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with make_store(tmp_path_factory.mktemp("shared") / "home", TINY_CHUNKS) as store:
        yield store
