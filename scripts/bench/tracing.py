"""strace and py-spy: starting them, stopping them, and reading what they wrote."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SAMPLES_PER_SECOND: Final = 400
WAITING: Final = (
    "EpollIOManager.get_events",
    "WorkerThread._work",
    "_worker (concurrent",
    "Condition.wait",
    "Event.wait",
    "SimpleQueue.get",
)
_PREFIXES: Final = re.compile(r"^.*/(site-packages/|lib/python[\d.]+/|(?=versionfs/))")
_ATTACH_SECONDS: Final = 0.7
"""A tracer does not say when it is ready."""


@dataclass(frozen=True, slots=True)
class Calls:
    """One system call of a summary of strace."""

    name: str
    calls: int
    seconds: float


def parse_strace(text: str) -> list[Calls]:
    """Reads the table that ``strace -c`` writes, most time first."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) in (5, 6) and re.fullmatch(r"[\d.]+", words[0]) and words[-1] != "total":
            found.append(Calls(words[-1], int(words[3]), float(words[1])))
    return sorted(found, key=lambda each: -each.seconds)


def parse_stacks(text: str) -> tuple[int, list[tuple[str, int]]]:
    """Reads the stacks that ``py-spy record -f raw`` writes.

    Returns how many samples there are, and how many each function was the innermost of; without
    threads that wait for work, which py-spy cannot always tell from those that work.
    """
    own: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            name = short_name(stack.rpartition(";")[2])
            if not name.startswith(WAITING):
                own[name] += int(count)
    return own.total(), own.most_common()


def short_name(frame: str) -> str:
    """Returns a frame without folders that say something about this machine."""
    name, _, where = frame.partition(" (")
    file = where.rstrip(")")
    file = _PREFIXES.sub("", file)
    if file.startswith("/"):
        file = "/".join(file.split("/")[-2:])
    return f"{name} ({file})" if file else name


def program(name: str) -> str | None:
    """Returns a tracer's program: beside this Python, or on the path; None if not installed."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


@contextmanager
def straced(pid: int, out: Path) -> Iterator[None]:
    """Counts the system calls of a process and its threads meanwhile."""
    with _attached(["strace", "-c", "-f", "-o", str(out), "-p", str(pid)]):
        yield


@contextmanager
def sampled(pid: int, out: Path) -> Iterator[None]:
    """Samples the Python stacks of a process meanwhile."""
    with _attached([*_spy(out), "--duration", "3600", "--pid", str(pid)]):
        yield


def strace_words(out: Path, words: Sequence[str | Path]) -> list[str]:
    """Returns a command that counts the system calls of another."""
    return ["strace", "-c", "-f", "-o", str(out), *(str(word) for word in words)]


def sample_words(out: Path, words: Sequence[str | Path]) -> list[str]:
    """Returns a command that samples the Python stacks of another."""
    return [*_spy(out), "--", *(str(word) for word in words)]


def run_quietly(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
    """Runs a command under a tracer; that it fails is for the result to show."""
    subprocess.run(
        words,
        env=os.environ | dict(environment),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _spy(out: Path) -> list[str]:
    rate = str(SAMPLES_PER_SECOND)
    spy = program("py-spy") or "py-spy"
    return [spy, "record", "--format", "raw", "--function", "--rate", rate, "--output", str(out)]


@contextmanager
def _attached(words: list[str]) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(_ATTACH_SECONDS)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
