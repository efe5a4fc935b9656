"""docs/benchmarks/results.json: what was measured, kept between runs.

``rows``: key → ``samples`` (contender → figures) and ``run``; ``profiles``: group → ``passes`` and
``run``; ``runs``: id → date, commit, command, machine, versions and who was left out. A run
replaces the rows that it measured, and no others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from scripts.bench.bench import Bench
from scripts.bench.machine import machine, versions
from scripts.bench.programs import ROOT

DOCS: Final = ROOT / "docs"
PAGE: Final = "benchmarks.md"
FILE: Final = "benchmarks/results.json"
NOTES: Final = "benchmarks/notes"

_FOLDERS: Final = ("--folder", "--code")

Results = dict[str, Any]


def load(file: Path) -> Results:
    """Returns what is kept; nothing measured if there is no file."""
    empty: Results = {"rows": {}, "profiles": {}, "runs": {}}
    return empty | json.loads(file.read_text()) if file.exists() else empty


def merge(old: Results, new: Results) -> Results:
    """Returns old results with those of a run in place of the same rows; forgets unused runs."""
    rows = {**old["rows"], **new["rows"]}
    profiles = {**old["profiles"], **new["profiles"]}
    used = {each["run"] for each in (*rows.values(), *profiles.values())}
    runs = {name: run for name, run in {**old["runs"], **new["runs"]}.items() if name in used}
    return {"rows": rows, "profiles": profiles, "runs": runs}


def results_of(bench: Bench, arguments: Sequence[str]) -> Results:
    """Returns the results of a run so far."""
    run = {
        "date": bench.began.strftime("%Y-%m-%d %H:%M UTC"),
        "commit": bench.commit,
        "command": " ".join(["scripts/bench/run", *without_folder(arguments)]),
        "rounds": bench.rounds,
        "machine": machine(bench.folder),
        "versions": versions(bench),
        "left_out": dict(bench.missing),
    }
    name = f"{bench.began:%Y%m%dT%H%M%S}"
    return {
        "rows": {
            key: {
                "run": name,
                "samples": {
                    contender: [float(f"{value:.6g}") for value in values]
                    for contender, values in samples.items()
                },
            }
            for key, samples in bench.samples.items()
        },
        "profiles": {
            group: {"run": name, "passes": passes} for group, passes in bench.profiles.items()
        },
        "runs": {name: run},
    }


def without_folder(arguments: Sequence[str]) -> list[str]:
    """Returns arguments without folders: they say something about a machine, not the figures."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        option, _, value = word.partition("=")
        if not skip and option not in _FOLDERS:
            kept.append(word)
        skip = option in _FOLDERS and not value
    return kept


def save(bench: Bench, arguments: Sequence[str], docs: Path) -> None:
    """Adds the results of a run to those in a folder, and writes the page and the plots again."""
    file = docs / FILE
    results = merge(load(file), results_of(bench, arguments))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    part.replace(file)
    publish(results, docs)


def publish(results: Results, docs: Path) -> None:
    """Writes the page and the plots from results and notes."""
    from scripts.bench.plots import plot
    from scripts.bench.render import render

    notes = {path.stem: path.read_text() for path in sorted((DOCS / NOTES).glob("*.md"))}
    plots = plot(results, (docs / FILE).parent)
    (docs / PAGE).write_text(render(results, notes, plots))
