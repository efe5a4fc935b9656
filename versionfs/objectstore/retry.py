"""Trying again: which is decided here and nowhere else.

An attempt that failed in a way the next may not raises :class:`AttemptFailedError`; all other
errors are final. Between attempts there is a pause with full jitter (Brooker, "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015): many clients that lost the same server do not come back
all at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from versionfs.errors import StorageTransientError, VersionFSError

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 5.0

T = TypeVar("T")


class AttemptFailedError(Exception):
    """An attempt failed, and another may not.

    ``reached`` tells whether the server answered at all; ``maybe_done`` whether it may have done
    what it was asked, as when only the reply was lost.
    """

    def __init__(self, reason: str, *, reached: bool, maybe_done: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reached = reached
        self.maybe_done = maybe_done


class UnusualAnswerError(Exception):
    """The server answered: not with what was asked for, but with what the caller asked to know."""


class Retries:
    """Repeats attempts until one succeeds or ``budget_seconds`` are used. Thread-safe.

    The budget is for all attempts at one operation and the pauses between; the last attempt may
    overrun it by its own time-out. Once an operation has used it up because the server could not
    be reached, the next ones get one attempt each, until one reaches it: being offline costs the
    budget once, not at every read.
    """

    def __init__(
        self,
        place: str,
        budget_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._place = place
        self._budget = budget_seconds
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._lock = threading.Lock()
        self._away = False
        self._warned = False
        self.retries = 0
        self.failures = 0

    def run(self, operation: str, attempt: Callable[[], T]) -> T:
        """Returns what the first attempt that succeeds returns; ``operation`` is for messages.

        Raises:
            StorageTransientError: the budget is used up.
        """
        started = self._clock()
        failed = 0
        while True:
            try:
                result = attempt()
            except AttemptFailedError as failure:
                failed += 1
                pause = self._uniform(0, _longest_pause(failed))
                used = self._clock() - started
                if used + pause >= self._budget or (self._away and not failure.reached):
                    raise self._give_up(operation, failure, failed, used) from failure
                log.debug("%s: %s: %s; trying again", self._place, operation, failure.reason)
                self._be_patient(failure, used)
                self._sleep(pause)
                with self._lock:
                    self.retries += 1
            except (VersionFSError, UnusualAnswerError):
                self._reached()
                raise
            else:
                self._reached()
                return result

    def _reached(self) -> None:
        if self._away or self._warned:
            with self._lock:
                warned, self._warned = self._warned, False
                self._away = False
            if warned:
                log.info("%s answers again", self._place)

    def _be_patient(self, failure: AttemptFailedError, used: float) -> None:
        """Says once in a while of silence that somebody waits for the server."""
        with self._lock:
            if self._warned or used < _PATIENCE_SECONDS:
                return
            self._warned = True
        log.warning(
            "%s does not answer: %s; trying for %g s", self._place, failure.reason, self._budget
        )

    def _give_up(
        self, operation: str, failure: AttemptFailedError, failed: int, used: float
    ) -> StorageTransientError:
        with self._lock:
            self.failures += 1
            if not failure.reached:
                self._away = True
        times = "once" if failed == 1 else f"{failed} times in {used:.0f} s"
        if not failure.reached:
            return StorageTransientError(
                f"{self._place} cannot be reached: {failure.reason} ({operation}, tried {times})",
                hint="check the network and the server; --timeout SECONDS says how long to try",
            )
        return StorageTransientError(
            f"{self._place} failed for now: {failure.reason} ({operation}, tried {times})",
            hint="try again later; --timeout SECONDS says how long to try",
        )


def _longest_pause(failed: int) -> float:
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failed - 1, 20)))
