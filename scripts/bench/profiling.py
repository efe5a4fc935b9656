"""Where the time goes: requests, processor time, system calls and Python functions.

Each comes from a pass of its own, as strace and py-spy slow down what they look at: requests and
processor time from one without them.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scripts.bench.bench import Bench
from scripts.bench.peers.ours import Daemon
from scripts.bench.programs import cpu_of, drop_caches
from scripts.bench.render import pass_text
from scripts.bench.scenarios import InMount, OfCommand, scenarios
from scripts.bench.tracing import (
    Calls,
    parse_stacks,
    parse_strace,
    program,
    run_quietly,
    sample_words,
    sampled,
    strace_words,
    straced,
)

TOP = 15

Pass = dict[str, object]


def profile(bench: Bench, group: str) -> None:
    """Profiles what there is to profile of a group."""
    passes = []
    for scenario in scenarios(bench, group):
        bench.say(f"  profiling {scenario.title}")
        if isinstance(scenario, InMount):
            passes.append(_in_mount(bench, scenario))
        else:
            passes.append(_of_command(bench, scenario))
    for found in passes:
        bench.say(f"\n{pass_text(found)}\n")
    if passes:
        bench.profiles[group] = passes


def _in_mount(bench: Bench, scenario: InMount) -> Pass:
    with _ready(scenario) as (daemon, folder):
        requests = daemon.statistics().get("requests", {})
        theirs, mine = cpu_of(daemon.pid), _cpu_here()
        began = time.perf_counter()
        done = scenario.work(folder)
        took = time.perf_counter() - began
        theirs, mine = _spent(theirs, cpu_of(daemon.pid)), _spent(mine, _cpu_here())
        after = daemon.statistics().get("requests", {})
    counts = {name: count - requests.get(name, 0) for name, count in after.items()}
    cpu = sum(theirs)
    unit = scenario.unit
    found: Pass = {
        "title": scenario.title,
        "summary": (
            f"{done:,.0f} × {unit} in {took:.3g} s: {done / took:,.4g}/s,"
            f" {each(took, done)} each."
            f" Processor: daemon {theirs[0]:.2f} s user + {theirs[1]:.2f} s system"
            f" ({each(cpu, done)} per {unit}),"
            f" clients {mine[0]:.2f} + {mine[1]:.2f} s ({each(sum(mine), done)} per {unit})."
        ),
        "requests": [
            [name, count, f"{count / done:.3g}"]
            for name, count in sorted(counts.items(), key=lambda pair: -pair[1])
            if count > 0
        ],
    }
    return found | _traced(bench, lambda attach: _again(scenario, attach), cpu, done)


def _of_command(bench: Bench, scenario: OfCommand) -> Pass:
    with scenario.ready() as (store, words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        bench.ours.run(store, *words)
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    found: Pass = {
        "title": scenario.title,
        "summary": f"{took:.3g} s. Processor: {user:.2f} s user + {system:.2f} s system.",
    }
    calls, stacks = bench.work / "calls", bench.work / "stacks"
    for out, wrapped in ((calls, strace_words), (stacks, sample_words)):
        out.unlink(missing_ok=True)
        if program("strace" if out is calls else "py-spy") is None:
            continue
        with scenario.ready() as (store, words):
            run_quietly(
                wrapped(out, bench.ours.words(*words)),
                bench.ours.environment(store),
                bench.ours.code,
            )
    return found | _tables(calls, stacks, user + system, 1)


@contextmanager
def _ready(scenario: InMount) -> Iterator[tuple[Daemon, Path]]:
    with scenario.mounted() as (daemon, folder):
        folder.stat()
        if scenario.cold:
            drop_caches()
        else:
            scenario.work(folder)
        yield daemon, folder


def _again(scenario: InMount, attach: Callable[[int], AbstractContextManager[None]]) -> None:
    with _ready(scenario) as (daemon, folder), attach(daemon.pid):
        scenario.work(folder)


def _traced(
    bench: Bench,
    again: Callable[[Callable[[int], AbstractContextManager[None]]], None],
    cpu: float,
    done: float,
) -> Pass:
    calls, stacks = bench.work / "calls", bench.work / "stacks"
    for out, tracer, tool in ((calls, straced, "strace"), (stacks, sampled, "py-spy")):
        out.unlink(missing_ok=True)
        if program(tool) is not None:
            again(partial(_swapped, tracer, out))
    return _tables(calls, stacks, cpu, done)


def _swapped(
    tracer: Callable[[int, Path], AbstractContextManager[None]], out: Path, pid: int
) -> AbstractContextManager[None]:
    return tracer(pid, out)


def _tables(calls: Path, stacks: Path, cpu: float, done: float) -> Pass:
    found: Pass = {}
    if calls.exists():
        lines = parse_strace(calls.read_text())[:TOP]
        found["calls"] = [_call(line, done) for line in lines if line.calls]
    if stacks.exists():
        total, functions = parse_stacks(stacks.read_text())
        found["functions"] = [
            [name, f"{count / total:.1%}", each(cpu * count / total, done)]
            for name, count in functions[:TOP]
        ]
    return found


def _call(line: Calls, done: float) -> list[Any]:
    return [line.name, line.calls, f"{line.calls / done:.3g}", f"{line.seconds:.3f}"]


def each(seconds: float, count: float) -> str:
    """Returns the time that each of some took."""
    if not count:
        return "?"
    took = seconds / count
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if took >= size:
            return f"{took / size:.3g} {unit}"
    return f"{took * 1e6:.3g} µs"


def _cpu_here() -> tuple[float, float]:
    """Returns what this process and those that it waited for used."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime for each in both), sum(each.ru_stime for each in both)


def _spent(before: tuple[float, float], after: tuple[float, float]) -> tuple[float, float]:
    return after[0] - before[0], after[1] - before[1]
