"""Running programs, and putting the machine into a known state before a measurement."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, ParamSpec

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PROGRAMS: Final = Path(os.environ.get("VERSIONFS_BENCH_PROGRAMS") or ROOT / ".bench" / "programs")
"""Virtual environments of peers, made by scripts/bench/run."""

P = ParamSpec("P")

_MOUNT_SECONDS: Final = 120.0
_BUSY_TRIES: Final = 300


class ProgramError(Exception):
    """A program failed; the message has its output."""


def command(
    *words: str | Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    text: str | None = None,
) -> str:
    """Runs a program and returns its standard output.

    Raises:
        ProgramError: it failed.
    """
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | dict(environment or {}),
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(word) for word in words)
        raise ProgramError(f"{shown} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(run: Callable[P, object], *arguments: P.args, **options: P.kwargs) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    run(*arguments, **options)
    return time.perf_counter() - began


def drop_caches() -> None:
    """Writes what is dirty and makes the next reads cold. Takes root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder; 0 if it does not exist."""
    total = 0
    for top, _, files in os.walk(folder):
        for name in files:
            total += os.lstat(f"{top}/{name}").st_size
    return total


@contextmanager
def foreground_mount(
    *words: str | Path, point: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Runs a program that serves a mount until it is unmounted; yields its process id.

    Raises:
        ProgramError: it does not mount.
    """
    process = subprocess.Popen(
        [str(word) for word in words],
        env=os.environ | dict(environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _MOUNT_SECONDS
        while not os.path.ismount(point):
            if time.monotonic() > deadline or process.poll() is not None:
                raise ProgramError(f"{words[0]} did not mount")
            time.sleep(0.02)
        yield process.pid
    finally:
        unmount(point)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def unmount(point: Path) -> None:
    """Unmounts a FUSE mount; waits while it is busy for a moment."""
    for _ in range(50):
        if not os.path.ismount(point):
            return
        done = subprocess.run(["fusermount3", "-u", point], capture_output=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["fusermount3", "-u", "-z", point], capture_output=True, check=False)


@contextmanager
def bound(source: Path, point: Path) -> Iterator[Path]:
    """Shows a folder at another path, by a bind mount. Takes root."""
    point.mkdir(parents=True, exist_ok=True)
    command("mount", "--bind", source, point)
    try:
        yield point
    finally:
        # git goes on in the background for a while.
        for _ in range(_BUSY_TRIES):
            if subprocess.run(["umount", point], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            command("umount", "--lazy", point)


def mounts_below(folder: Path) -> list[Path]:
    """Returns what is mounted at and below a folder, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return sorted((point for point in points if point.is_relative_to(folder)), reverse=True)


def remove(folder: Path) -> None:
    """Removes a folder with all that is in it, if it exists.

    Raises:
        ProgramError: something is mounted in it: that would be removed too.
    """
    if mounts_below(folder):
        raise ProgramError(f"{folder} is not removed: something is mounted in it")
    shutil.rmtree(folder, ignore_errors=True)


def memory_of(pid: int) -> tuple[int, int]:
    """Returns the resident bytes of a process, now and at most (VmRSS, VmHWM)."""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            values[name] = int(rest.split()[0]) * 1024
    return values["VmRSS"], values["VmHWM"]


def cpu_of(pid: int) -> tuple[float, float]:
    """Returns the user and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick
