"""One refresh of a mount: what its views show is looked up, then they are moved in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from versionfs.vfs.views import Invalidation, Located, Mover, Step, View


class Refresh:
    """Brings what a mount shows in line with the refs, in steps: see :meth:`FileSystem.refresh`."""

    def __init__(
        self,
        look: Callable[[], object],
        views: list[View],
        mover: Mover,
        others: list[Invalidation],
        heads: Callable[[], object],
        branches: Callable[[], Iterable[Step]],
    ) -> None:
        self._heads = heads
        self._branches = branches
        self._look = look
        self._views = views
        self._mover = mover
        self._others = others
        self._found: list[tuple[View, Located | None]] = []

    def locate(self) -> None:
        """Asks the store what each view shows now. May block, may run in any thread.

        Raises:
            StorageTransientError: the store cannot be reached.
        """
        self._look()
        for view in self._views:
            self._found.append((view, view.locate()))
        self._heads()

    def steps(self) -> Iterator[Step]:
        """Moves the views; after each step the kernel must drop what it yields.

        In the thread of the file system; each step is short. What it yields may also be work that
        must be done before the next step; that blocks, and may run in any thread.
        """
        yield self._others
        for view, located in self._found:
            old = view.located
            if old is None or (located is not None and old.commit.ref == located.commit.ref):
                continue
            yield from self._mover.move(view, located)
        yield from self._branches()
