"""The command line as its users meet it: a process of its own, in a fresh VERSIONFS_HOME."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    raw: bytes

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def rows(self):
        return [line.split("\t") for line in self.lines]

    @property
    def json(self):
        return json.loads(self.out)


class CommandLine:
    """Runs ``python -m versionfs`` in a folder, with one VERSIONFS_HOME."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "Europe/Berlin",
            "USER": "ada",
            "VERSIONFS_HOME": str(home),
            **{k: v for k, v in os.environ.items() if k.startswith("COVERAGE")},
        }

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [sys.executable, "-m", "versionfs", *(os.fspath(argument) for argument in arguments)]

    def run(self, *arguments, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Result:
        """Runs a command in a pipe; whatever happens, there is no traceback."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=cwd or self.folder,
            env=self.env | env,
            timeout=100,
            check=False,
        )
        err = done.stderr.decode("utf-8", "surrogateescape")
        assert "Traceback" not in err, err
        out = done.stdout.decode("utf-8", "surrogateescape")
        return Result(done.returncode, out, err, done.stdout)

    def ok(self, *arguments, **options) -> Result:
        """Runs a command that has to succeed, without a word on standard error."""
        result = self.run(*arguments, **options)
        assert (result.code, result.err) == (0, ""), result
        return result

    def fails(self, code: int, *arguments, **options) -> Result:
        """Runs a command that has to fail: one line, perhaps details and a hint."""
        result = self.run(*arguments, **options)
        assert result.code == code, result
        first, *rest = result.err.splitlines()
        assert first.startswith("versionfs: ")
        assert all(line.startswith("  ") for line in rest)
        return result

    def terminal(self, *arguments, answer: str = "", columns: int = 100, **env: str):
        """Runs a command on a pseudo-terminal; returns its exit code and all it showed."""
        master, slave = pty.openpty()
        environment = self.env | {"TERM": "xterm-256color", "COLUMNS": str(columns)} | env
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        if answer:
            os.write(master, answer.encode())
        shown = b""
        while select.select([master], [], [], 60)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        text = shown.decode("utf-8", "replace").replace("\r\n", "\n")
        assert "Traceback" not in text, text
        return process.wait(60), text


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A command line with nothing in its home yet."""
    folder = tmp_path / "work"
    folder.mkdir()
    return CommandLine(tmp_path / "home", folder)


def make_source(folder: Path) -> None:
    """Makes the first version of a small data set."""
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.txt").write_bytes(b"alpha\n")
    (folder / "gone.txt").write_bytes(b"to be removed\n")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    (folder / "turns").write_bytes(b"file first")
    Path(os.fsdecode(os.fsencode(folder) + b"/odd \xff\tname\n")).write_bytes(b"odd")
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 1_600_000_000_000_000_000), follow_symlinks=False)


def change_source(folder: Path) -> None:
    """Turns the first version into the second: A, D, M and T."""
    (folder / "a.txt").write_bytes(b"alpha and more\n")
    (folder / "gone.txt").unlink()
    (folder / "sub" / "new.txt").write_bytes(b"new\n")
    (folder / "turns").unlink()
    (folder / "turns").symlink_to("a.txt")


@pytest.fixture(scope="session")
def _filled(tmp_path_factory) -> CommandLine:
    base = tmp_path_factory.mktemp("filled")
    (base / "work").mkdir()
    cli = CommandLine(base / "home", base / "work")
    source = base / "work" / "source"
    make_source(source)
    cli.ok("import", source, "photos", "-m", "first\n\nwith a body", "--author", "ada <a@x>")
    cli.ok("tag", "photos@v1")
    change_source(source)
    cli.ok("import", source, "photos", "-m", "second", "--metadata", "run=7")
    cli.ok("branch", "photos/dev", "@v1")
    return cli


@pytest.fixture
def photos(_filled: CommandLine, tmp_path: Path) -> CommandLine:
    """A copy of a home that holds ``photos``: main with two commits; v1 and dev at the first."""
    shutil.copytree(_filled.folder, tmp_path / "work", symlinks=True)
    shutil.copytree(_filled.home, tmp_path / "home", symlinks=True)
    return CommandLine(tmp_path / "home", tmp_path / "work")
