"""What polling does with repositories that cannot be refreshed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import trio

from versionfs.errors import CorruptionError
from versionfs.fuse.refresher import Refresher


def _nothing(_: object) -> None:
    pass


class Moves:
    """A file system in which four repositories moved at once, one of which is damaged."""

    def __init__(self) -> None:
        self.moves = [["bad", "one", "three", "two"]]
        self.refreshed: list[str | None] = []
        self.heals_after = 1_000_000
        self.asked = 0

    def moved(self) -> list[str]:
        return self.moves.pop() if self.moves else []

    def refresh(self, repository: str | None, *, look: bool) -> Any:
        assert not look
        return _Work(self, repository)


class _Work:
    def __init__(self, moves: Moves, repository: str | None) -> None:
        self._moves = moves
        self._repository = repository

    def locate(self) -> None:
        self._moves.asked += 1
        if self._repository == "bad" and self._moves.asked <= self._moves.heals_after:
            raise CorruptionError(f"{self._repository} is damaged")

    def steps(self) -> Iterator[Any]:
        self._moves.refreshed.append(self._repository)
        return iter(())


def _poll_until(moves: Moves, is_enough: Callable[[], bool]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Refresher(moves, _nothing, every_seconds=0.0).poll)  # type: ignore[arg-type]
            with trio.fail_after(30):
                while not is_enough():
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_repository_that_cannot_be_refreshed_holds_up_no_other() -> None:
    moves = Moves()
    _poll_until(moves, lambda: moves.asked >= 6 and len(moves.refreshed) >= 3)
    assert sorted(str(name) for name in moves.refreshed) == ["one", "three", "two"]


def test_what_could_not_be_refreshed_is_tried_again() -> None:
    moves = Moves()
    moves.heals_after = 6
    _poll_until(moves, lambda: len(moves.refreshed) >= 4)
    assert sorted(str(name) for name in moves.refreshed) == ["bad", "one", "three", "two"]
