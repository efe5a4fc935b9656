from __future__ import annotations

import threading

import pytest

from versionfs.transfer.executors import PatientExecutor


def test_the_first_tasks_are_done_by_who_has_them():
    with PatientExecutor(1, "test", first=2) as executor:
        threads = [executor.submit(threading.get_ident).result() for _ in range(4)]
    assert threads[:2] == [threading.get_ident()] * 2
    assert threading.get_ident() not in threads[2:]


def test_what_a_first_task_raises_is_for_who_asks_for_its_result():
    def fail() -> None:
        raise ValueError("no")

    with PatientExecutor(1, "test", first=1) as executor:
        future = executor.submit(fail)
        with pytest.raises(ValueError, match="no"):
            future.result()


def test_an_interrupt_is_for_who_asks_for_the_result_too():
    """Else nobody would know of a pack that was being completed."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with PatientExecutor(1, "test", first=1) as executor:
        future = executor.submit(interrupted)
        with pytest.raises(KeyboardInterrupt):
            future.result()
