"""Retries: how often, how long, and when not. The clock is the test's."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from versionfs.errors import NotFoundError, StorageTransientError
from versionfs.objectstore.retry import AttemptFailedError, Retries
from versionfs.objectstore.s3errors import (
    ConditionFailedError,
    NotModifiedError,
    OutOfRangeError,
)


class Clock:
    """Time that passes only by sleeping and by attempts that say so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retries(clock: Clock) -> Retries:
    """Retries for a minute whose pauses are as long as they may be."""
    return Retries(
        "s3://b/p", 60, clock=lambda: clock.now, sleep=clock.sleep, uniform=lambda _low, high: high
    )


def failing(
    times: int | None, *, reached: bool = True, calls: list[int] | None = None
) -> Callable[[], str]:
    """Returns an attempt that fails so many times, or always."""
    made = [] if calls is None else calls

    def attempt() -> str:
        made.append(len(made))
        if times is None or len(made) <= times:
            raise AttemptFailedError("503 SlowDown", reached=reached, maybe_done=True)
        return "done"

    return attempt


def test_an_attempt_that_succeeds_is_the_only_one(retries: Retries, clock: Clock) -> None:
    assert retries.run("GET k", failing(0)) == "done"
    assert (retries.retries, retries.failures, clock.pauses) == (0, 0, [])


def test_pauses_double_up_to_five_seconds(retries: Retries, clock: Clock) -> None:
    assert retries.run("GET k", failing(10)) == "done"
    assert clock.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert (retries.retries, retries.failures) == (10, 0)


def test_a_pause_is_chosen_between_nothing_and_its_longest() -> None:
    asked = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    Retries("s3://b", 60, sleep=lambda _: None, uniform=uniform).run("GET k", failing(3))
    assert asked == [(0, 0.05), (0, 0.1), (0, 0.2)]


def test_the_budget_bounds_all_attempts_and_pauses(retries: Retries, clock: Clock) -> None:
    calls: list[int] = []
    with pytest.raises(StorageTransientError, match=r"503 SlowDown \(PUT k, tried \d+ times"):
        retries.run("PUT k", failing(None, calls=calls))
    assert 50 < clock.now < 60
    assert retries.retries == len(calls) - 1
    assert retries.failures == 1


def test_an_attempt_may_use_the_budget_up_alone(retries: Retries, clock: Clock) -> None:
    def hang() -> None:
        clock.now += 61
        raise AttemptFailedError("no answer in time", reached=False, maybe_done=True)

    with pytest.raises(StorageTransientError, match=r"cannot be reached: no answer in time"):
        retries.run("GET k", hang)
    assert clock.pauses == []


def test_other_errors_are_final(retries: Retries) -> None:
    def absent() -> None:
        raise NotFoundError("no such object")

    with pytest.raises(NotFoundError):
        retries.run("GET k", absent)
    assert (retries.retries, retries.failures) == (0, 0)


def test_being_offline_costs_the_budget_once(retries: Retries) -> None:
    calls: list[int] = []
    with pytest.raises(StorageTransientError, match="cannot be reached"):
        retries.run("GET k", failing(None, reached=False, calls=calls))
    assert len(calls) > 10
    for _ in range(3):
        calls.clear()
        with pytest.raises(StorageTransientError, match="tried once"):
            retries.run("GET k", failing(None, reached=False, calls=calls))
        assert len(calls) == 1


@pytest.mark.parametrize("reply", ["success", "refusal"])
def test_a_server_that_is_back_is_given_the_whole_budget_again(
    retries: Retries, reply: str
) -> None:
    with pytest.raises(StorageTransientError):
        retries.run("GET k", failing(None, reached=False))
    if reply == "success":
        retries.run("GET k", failing(0))
    else:
        with pytest.raises(NotFoundError):
            retries.run("GET k", refuse)
    assert retries.run("GET k", failing(5, reached=False)) == "done"


def refuse() -> None:
    raise NotFoundError("no such object")


def test_a_server_that_answers_badly_is_not_an_absent_one(retries: Retries) -> None:
    with pytest.raises(StorageTransientError):
        retries.run("GET k", failing(None, reached=True))
    assert retries.run("GET k", failing(5)) == "done"


def test_waiting_long_is_told_once(
    retries: Retries, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "versionfs")
    retries.run("GET k", failing(4))
    assert caplog.messages == []
    retries.run("GET k", failing(12, reached=False))
    assert caplog.messages == [
        "s3://b/p does not answer: 503 SlowDown; trying for 60 s",
        "s3://b/p answers again",
    ]


@pytest.mark.parametrize("answer", [NotModifiedError, ConditionFailedError, OutOfRangeError])
def test_an_unusual_answer_is_an_answer(retries: Retries, answer: type[Exception]) -> None:
    with pytest.raises(StorageTransientError):
        retries.run("GET k", failing(None, reached=False))

    def answered() -> None:
        raise answer

    with pytest.raises(answer):
        retries.run("GET k", answered)
    assert retries.run("GET k", failing(1, reached=False)) == "done", "it is tried again as before"
