"""docs/benchmarks/results.json: what was measured, kept between runs."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.bench.bench import Bench


def save(bench: Bench, arguments: Sequence[str]) -> None:
    """Placeholder."""
