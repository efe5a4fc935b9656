"""Threads that begin only when there is enough for them to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class PatientExecutor(ThreadPoolExecutor):
    """Does the first tasks in the thread that has them; then it is as any other.

    To start a thread and to wake it takes longer than a task of a small commit.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str, *, first: int) -> None:
        """Makes an executor; ``first`` is how many tasks are done by who submits them."""
        super().__init__(max_workers, thread_name_prefix)
        self._left = first

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Does a task, or has a thread do it."""
        if self._left <= 0:
            return super().submit(fn, *args, **kwargs)
        self._left -= 1
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  (for whoever asks for the result)
            done.set_exception(error)
        return done
