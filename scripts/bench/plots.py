"""The plots beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.bench.figures import Better, Judgement, judge, summarise
from scripts.bench.render import samples_of
from scripts.bench.rows import BY_KEY, OURS, ROWS

FAMILIES: Final = {
    "reading": (
        "Reading (medians; more is better unless seconds)",
        ("walk.cold", "walk.warm", "read.cold", "read.shuffled", "read.warm",
         "sequential.cold-random", "sequential.cold-text", "random.cold", "listing.cold"),
    ),
    "storing": (
        "Storing (medians; less is better)",
        ("import.seconds", "import.stored", "import.v2-seconds", "import.v2-stored",
         "reimport.mixed", "reimport.tree"),
    ),
}  # fmt: skip
_OURS, _THEIRS, _MISSED = "#1b7837", "#9a9a9a", "#c0392b"


def achievement(found: Judgement, better: Better) -> float | None:
    """Returns how far a target was reached: 1 is just reached, 2 is twice as good as asked for."""
    if found.ratio is None or not found.ratio:
        return None
    factor = found.target.factor
    less = found.target.kind == "at most" or (
        found.target.kind == "absolute" and better is Better.LESS
    )
    return factor / found.ratio if less else found.ratio / factor


def plot(results: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Writes the plots; returns names and titles. None without matplotlib, or without results."""
    try:
        import matplotlib as mpl
    except ImportError:
        there = (folder / f"{name}.png" for name in ("targets", *FAMILIES))
        return [(path.name, path.stem) for path in there if path.exists()]
    mpl.use("Agg")
    written = _targets(results, folder)
    for name, (title, keys) in FAMILIES.items():
        written += _family(results, folder, name, title, keys)
    return written


def _targets(results: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    from matplotlib import pyplot as plt

    labels, values = [], []
    for row in ROWS:
        for target in row.targets:
            found = judge(target, samples_of(row, results), row.better)
            value = achievement(found, row.better)
            if value is not None:
                of = target.ours.removeprefix("versionfs").lstrip(" ,")
                beside = f" / {found.peer}" if found.peer else ""
                labels.append(f"{row.key}{f' {of}' if of else ''}{beside} ({target.factor:g})")
                values.append(value)
    if not values:
        return []
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(values) + 1), layout="constrained")
    colours = [_OURS if value >= 1 else _MISSED for value in values]
    axes.barh(range(len(values)), [value - 1 for value in values], left=1, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(
        [0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1", "¼", "½", "reached", "2 ×", "4 ×", "10 ×"]
    )
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.set_yticks(range(len(values)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_title("Measured ratio over its target", fontsize=10)
    return _write(figure, folder, "targets", "Measured ratios over their targets")


def _family(
    results: Mapping[str, Any], folder: Path, name: str, title: str, keys: Sequence[str]
) -> list[tuple[str, str]]:
    from matplotlib import pyplot as plt

    rows = [BY_KEY[key] for key in keys if samples_of(BY_KEY[key], results)]
    if not rows:
        return []
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure, all_axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 2.3 * lines), squeeze=False, layout="constrained"
    )
    for axes in all_axes.flat[len(rows) :]:
        axes.axis("off")
    for axes, row in zip(all_axes.flat, rows, strict=False):
        found = {name: summarise(values) for name, values in samples_of(row, results).items()}
        medians = [each.median for each in found.values()]
        spread = [
            [each.median - each.low for each in found.values()],
            [each.high - each.median for each in found.values()],
        ]
        colours = [_OURS if name in OURS else _THEIRS for name in found]
        axes.barh(range(len(found)), medians, xerr=spread, color=colours, ecolor="#555555")
        axes.set_yticks(range(len(found)), list(found), fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"{row.key}, {row.unit}", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return _write(figure, folder, name, title)


def _write(figure: Any, folder: Path, name: str, title: str) -> list[tuple[str, str]]:
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it: the same picture is the same file.
    figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return [(f"{name}.png", title)]
