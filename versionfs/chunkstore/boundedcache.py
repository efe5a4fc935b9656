"""What was read and decoded, kept for those who need it next: bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What says how many bytes of memory it takes."""

    @property
    def size_bytes(self) -> int:
        """Does not change."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class BoundedCache(Generic[K, V]):
    """Keeps what was used last; one thing at least, however large. For one thread at a time."""

    def __init__(self, bound_bytes: int) -> None:
        self._bound = bound_bytes
        self._kept: OrderedDict[K, V] = OrderedDict()
        self.held = 0
        """Bytes of what is kept."""

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def get(self, key: K) -> V | None:
        """Returns what is kept under a key, which is used by that; None if nothing is."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keeps something, in place of what was used longest ago; not if there is one already."""
        if key in self._kept:
            return
        self._kept[key] = value
        self.held += value.size_bytes
        while self.held > self._bound and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self.held -= old.size_bytes

    def drop(self, key: K) -> None:
        """Keeps what is under a key no longer."""
        value = self._kept.pop(key, None)
        if value is not None:
            self.held -= value.size_bytes
