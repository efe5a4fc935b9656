"""What errors hold, and for how long."""

from __future__ import annotations

from versionfs.errors import let_go


def raised(cause: BaseException | None = None) -> ValueError:
    try:
        raise ValueError("x") from cause
    except ValueError as error:
        return error


def test_frames_are_taken_from_all_errors_behind_one() -> None:
    first, second = raised(), raised()
    try:
        raise second
    except ValueError:
        third = raised(first)
    assert third.__cause__ is first
    assert third.__context__ is second
    assert all(error.__traceback__ for error in (first, second, third))
    let_go(third)
    assert not any(error.__traceback__ for error in (first, second, third))


def test_errors_in_a_ring_end() -> None:
    one, other = raised(), raised()
    one.__cause__, other.__cause__ = other, one
    let_go(one)
    assert one.__traceback__ is None
    assert other.__traceback__ is None
