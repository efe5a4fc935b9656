"""Requests side by side, their results in order, with a bound on what is held at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yields ``work(item)`` of each item, in order, at most ``threads`` of them ahead.

    With one thread it is the caller's. What ``work`` raises is raised here; then, as when the
    caller stops early, nothing is begun any more and what runs is waited for.
    """
    if threads <= 1:
        for item in items:
            yield work(item)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="request") as executor:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(executor.submit(work, item))
                if len(ahead) >= threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
