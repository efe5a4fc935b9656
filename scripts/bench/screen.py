"""The results of a run on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from scripts.bench.bench import Bench
from scripts.bench.figures import judge, summarise
from scripts.bench.rows import ROWS


def show(bench: Bench) -> None:
    """Prints medians, spreads and targets."""
    table = Table("work", "contender", "median", "spread", "unit")
    targets = Table("work", "of", "beside", "ratio", "target", "reached")
    for row in ROWS:
        samples = bench.samples.get(row.key, {})
        for contender, values in samples.items():
            found = summarise(values)
            spread = f"{found.low:,.4g}–{found.high:,.4g} ({found.count})"
            table.add_row(row.key, contender, f"{found.median:,.4g}", spread, row.unit)
        for target in row.targets:
            judgement = judge(target, samples, row.better)
            if judgement.ratio is not None:
                sign = "≤" if target.kind == "at most" else "≥"
                targets.add_row(
                    row.key,
                    target.ours,
                    judgement.peer or row.unit,
                    f"{judgement.ratio:,.4g}",
                    f"{sign} {target.factor:g}" if judgement.peer else f"{target.factor:g}",
                    "yes" if judgement.reached else "NO",
                )
    console = Console(width=120)
    console.print(table)
    console.print(targets)
    for name, why in bench.missing.items():
        console.print(f"left out: {name}: {why}", highlight=False)
