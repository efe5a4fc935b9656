"""docs/benchmarks.md from results and notes. Pure: the same page for the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bench.figures import Better, Judgement, Samples, Target, judge, speed_ratio, summarise
from scripts.bench.rows import BRANCH, GROUPS, ROWS, VERSIONFS, Row

Results = Mapping[str, Any]

_HEAD = """\
Written by `scripts/bench/run`: the figures come from `benchmarks/results.json`, the prose from
`benchmarks/notes/`. A run of a subset replaces only its rows; each says when and at which commit it
was measured."""


def render(results: Results, notes: Mapping[str, str], plots: Sequence[tuple[str, str]]) -> str:
    """Returns the page.

    ``notes`` are by group, and ``intro``; ``plots`` are file names and titles.
    """
    parts = [
        "# Benchmarks",
        _HEAD,
        notes.get("intro", "").strip(),
        "## Targets",
        *(f"![{title}](benchmarks/{name})" for name, title in plots[:1]),
        targets_table(results),
    ]
    parts += [f"![{title}](benchmarks/{name})" for name, title in plots[1:]]
    for group, title in GROUPS.items():
        rows = [row for row in ROWS if row.group == group and row.key in results["rows"]]
        profile = results["profiles"].get(group)
        if not rows and profile is None and group not in notes:
            continue
        parts.append(f"## {group}: {title}")
        for row in rows:
            parts += [row_heading(row, results), row_table(row, samples_of(row, results))]
        if group in notes:
            parts.append(notes[group].strip())
        if profile is not None:
            parts += ["### Where the time goes", *map(pass_text, profile["passes"])]
    runs = sorted(results["runs"].items(), reverse=True)
    parts += ["## Machines and programs", "\n".join(map(run_text, runs))]
    return "\n\n".join(part for part in parts if part) + "\n"


def samples_of(row: Row, results: Results) -> Samples:
    """Returns the samples of a row; none if it was not measured."""
    found: Samples = results["rows"].get(row.key, {}).get("samples", {})
    return found


def targets_table(results: Results) -> str:
    """Returns all targets, with how they were met."""
    lines = [
        ("work", "of", "beside", "target", "median ratio", "reached"),
        ("---", "---", "---", "---:", "---:", "---"),
    ]
    for row in ROWS:
        samples = samples_of(row, results)
        for target in row.targets:
            found = judge(target, samples, row.better)
            lines.append(
                (
                    row.work,
                    target.ours,
                    found.peer or " / ".join(target.peers) or "–",
                    wanted(target, row),
                    "not measured" if found.ratio is None else ratio_text(found, row),
                    {True: "yes", False: "**no**", None: ""}[found.reached],
                )
            )
    return table(lines)


def wanted(target: Target, row: Row) -> str:
    """Returns a target as text."""
    if target.kind == "absolute":
        sign = "≥" if row.better is Better.MORE else "≤"
        return f"{sign} {number(target.factor)} {row.unit}"
    return f"{'≤' if target.kind == 'at most' else '≥'} {target.factor:g} ×"


def ratio_text(found: Judgement, row: Row) -> str:
    """Returns what was found as text."""
    assert found.ratio is not None
    if found.target.kind == "absolute":
        return f"{number(found.ratio)} {row.unit}"
    return f"{found.ratio:.2f} ×" if found.ratio < 100 else f"{found.ratio:,.0f} ×"


def row_heading(row: Row, results: Results) -> str:
    """Returns the line above a row's table."""
    run = results["runs"].get(results["rows"][row.key]["run"], {})
    return f"**{row.work}**, {row.unit} ({run.get('date', '?')[:10]}, {run.get('commit', '?')})"


def row_table(row: Row, samples: Samples) -> str:
    """Returns what was measured of each contender, and how many times as good ours is."""
    ours = next((name for name in (BRANCH, VERSIONFS) if name in samples), next(iter(samples)))
    base = summarise(samples[ours]).median
    lines = [
        ("", "median", "min – max", "n", f"{ours} is"),
        ("---", "---:", "---:", "---:", "---:"),
    ]
    for name, values in samples.items():
        found = summarise(values)
        ratio = speed_ratio(base, found.median, row.better)
        lines.append(
            (
                name,
                number(found.median),
                f"{number(found.low)} – {number(found.high)}",
                str(found.count),
                "" if name == ours else f"{ratio:.2f} ×",
            )
        )
    return table(lines)


def number(value: float) -> str:
    """Returns a figure with three digits that count."""
    if abs(value) >= 1000:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.3g}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pass_text(found: Mapping[str, Any]) -> str:
    """Returns one profiled pass: requests, processor time, system calls, functions."""
    parts = [f"**{found['title']}**: {found['summary']}"]
    for key, heads in (
        ("requests", ("request", "count", "per unit of work")),
        ("calls", ("system call", "calls", "per unit of work", "seconds")),
        ("functions", ("function (own time)", "share", "per unit of work")),
    ):
        lines = found.get(key)
        if lines:
            rule = ("---", *("---:" for _ in heads[1:]))
            parts.append(table([heads, rule, *([str(cell) for cell in line] for line in lines)]))
    return "\n\n".join(parts)


def run_text(item: tuple[str, Mapping[str, Any]]) -> str:
    """Returns what a run was made with."""
    _, run = item
    machine = ", ".join(f"{name} {value}" for name, value in run["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    text = f"* {run['date']}, commit {run['commit']}, `{run['command']}`, {run['rounds']} rounds: "
    text += f"{machine}; {versions}."
    for name, why in run["left_out"].items():
        text += f" Left out: {name} ({why})."
    return text
