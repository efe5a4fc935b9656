"""From samples to medians, ratios and whether a target is reached. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")

Samples = Mapping[str, Sequence[float]]
"""What was measured of each contender."""


class Better(enum.Enum):
    """Which of two figures is the better one."""

    MORE = "more"
    LESS = "less"


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the ends of some samples."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a row has to reach.

    ``kind`` is "times": ours is at least ``factor`` times as good as the best of the peers;
    "at most": our figure is at most ``factor`` times the smallest of the peers';
    "absolute": our figure is at least (or at most, where less is better) ``factor``.
    """

    ours: str
    factor: float
    peers: tuple[str, ...] = ()
    kind: str = "times"


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a target was met. ``ratio`` is a figure for "absolute"; None if nobody was measured."""

    target: Target
    peer: str | None
    ratio: float | None
    reached: bool | None


def summarise(samples: Sequence[float]) -> Summary:
    """Returns the summary of at least one sample."""
    return Summary(median(samples), min(samples), max(samples), len(samples))


def speed_ratio(ours: float, theirs: float, better: Better) -> float:
    """Returns how many times as good ours is; over 1 is better, whatever the unit."""
    over, under = (ours, theirs) if better is Better.MORE else (theirs, ours)
    return over / under if under else float("inf")


def judge(target: Target, samples: Samples, better: Better) -> Judgement:
    """Compares medians with a target."""
    mine = samples.get(target.ours)
    if not mine:
        return Judgement(target, None, None, None)
    ours = median(mine)
    if target.kind == "absolute":
        reached = ours >= target.factor if better is Better.MORE else ours <= target.factor
        return Judgement(target, None, ours, reached)
    medians = {name: median(samples[name]) for name in target.peers if samples.get(name)}
    if not medians:
        return Judgement(target, None, None, None)
    if target.kind == "at most":
        peer = min(medians, key=medians.__getitem__)
        ratio = ours / medians[peer] if medians[peer] else float("inf")
        return Judgement(target, peer, ratio, ratio <= target.factor)
    pick = max if better is Better.MORE else min
    peer = pick(medians, key=medians.__getitem__)
    ratio = speed_ratio(ours, medians[peer], better)
    return Judgement(target, peer, ratio, ratio >= target.factor)


def alternated(items: Sequence[T], round_number: int) -> list[T]:
    """Returns the items in the order of a round: forward, backward, and so on.

    So that what one leaves behind (a warm CPU, a busy disk) does not always meet the same next one.
    """
    return list(items) if round_number % 2 == 0 else list(reversed(items))
