"""Measures versionfs on S3 beside boto3 and rclone mount: each request takes 50 ms longer.

A SeaweedFS server and a proxy run for it, on free ports; the data is written past the proxy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from scripts.bench.datasets import make_small  # noqa: E402
from scripts.bench.programs import command, timed  # noqa: E402
from tests.support.seaweed import S3Server  # noqa: E402

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LATENCY_SECONDS: Final = 0.05
CONNECTIONS: Final = 16
SMALL_FILES: Final = 20_000
LARGE_BYTES: Final = 1 << 30
RANGE_BYTES: Final = 4 << 20
PEER_SECONDS: Final = 60.0
"""rclone would take an hour: it is stopped then, and what it did until then is its rate."""

Row = tuple[str, str, list[float], list[float]]
"""What was measured, beside whom, ours, theirs: one figure for each round."""


@contextlib.contextmanager
def slow_proxy(endpoint: str) -> Iterator[str]:
    """Runs a proxy in a process of its own; yields its endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.proxy", endpoint, "--latency", str(LATENCY_SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


def client(environment: dict[str, str], endpoint: str) -> S3Client:
    """Returns a client for the server behind an endpoint."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(max_pool_connections=CONNECTIONS, s3={"addressing_style": "path"}),
    )


def range_gets(s3: S3Client, bucket: str, key: str) -> float:
    """Reads an object by range GETs in parallel; returns the seconds it took."""

    def get(start: int) -> int:
        where = f"bytes={start}-{start + RANGE_BYTES - 1}"
        return len(s3.get_object(Bucket=bucket, Key=key, Range=where)["Body"].read())

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        began = time.perf_counter()
        total = sum(pool.map(get, range(0, LARGE_BYTES, RANGE_BYTES)))
        took = time.perf_counter() - began
    assert total == LARGE_BYTES
    return took


class OnS3:
    """The data sets in one server, as versionfs stores them and as plain objects."""

    def __init__(self, server: S3Server, work: Path) -> None:
        self.server = server
        self.work = work
        self.bucket = server.bucket()
        self.environment = dict(server.environment)
        self.direct = client(self.environment, server.endpoint)
        self.point = work / "mount"
        self.point.mkdir()

    def versionfs(self, home: Path, endpoint: str, *words: str | Path) -> None:
        """Runs versionfs with a home of its own."""
        command(
            sys.executable, "-m", "versionfs", *words,
            environment=self.environment | {
                "VERSIONFS_HOME": str(home),
                "VERSIONFS_STORE": f"s3://{self.bucket}/store",
                "AWS_ENDPOINT_URL_S3": endpoint,
            },
        )  # fmt: skip

    def load(self, data: Path) -> None:
        """Imports a folder, and uploads its files as they are below ``plain/``."""
        home = self.work / "writer"
        if not home.exists():
            self.versionfs(home, self.server.endpoint, "init")
        self.versionfs(home, self.server.endpoint, "import", data, data.name, "-m", "one")

        def put(path: Path) -> None:
            key = f"plain/{data.name}/{path.relative_to(data)}"
            with path.open("rb") as body:
                self.direct.put_object(Bucket=self.bucket, Key=key, Body=body)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(put, [path for path in data.rglob("*") if path.is_file()]))

    @contextlib.contextmanager
    def mounted(self, endpoint: str, name: str) -> Iterator[Path]:
        """Mounts a data set with nothing cached."""
        home = self.work / "reader"
        shutil.rmtree(home, ignore_errors=True)
        self.versionfs(home, endpoint, "mount", "--read-only", self.point, f"{name}/main")
        try:
            yield self.point
        finally:
            self.versionfs(home, endpoint, "umount", self.point)

    @contextlib.contextmanager
    def rclone(self, endpoint: str, name: str) -> Iterator[Path]:
        """Mounts the plain objects of a data set by rclone, with its full cache, empty."""
        cache = self.work / "rclone-cache"
        shutil.rmtree(cache, ignore_errors=True)
        remote = (
            f":s3,provider=Other,endpoint='{endpoint}',force_path_style=true:"
            f"{self.bucket}/plain/{name}"
        )
        environment = os.environ | {
            "RCLONE_S3_ACCESS_KEY_ID": self.environment["AWS_ACCESS_KEY_ID"],
            "RCLONE_S3_SECRET_ACCESS_KEY": self.environment["AWS_SECRET_ACCESS_KEY"],
            "RCLONE_CONFIG": "/dev/null",
        }
        program = Path(sys.executable).with_name("rclone")
        process = subprocess.Popen(
            [program, "mount", remote, self.point, "--vfs-cache-mode", "full", "--read-only",
             "--cache-dir", cache, "--dir-cache-time", "1h"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while not os.path.ismount(self.point):
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit("rclone mount did not start")
                time.sleep(0.1)
            yield self.point
        finally:
            subprocess.run(["fusermount3", "-u", "-z", self.point], check=False)
            process.terminate()
            process.wait()


def tar_rate(folder: Path, seconds: float | None) -> float:
    """Reads all files as ``tar c`` does, for some seconds at most; returns files per second."""
    done = 0
    began = time.perf_counter()
    for top, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            with open(f"{top}/{name}", "rb", buffering=0) as file:
                file.read()
            done += 1
            if seconds is not None and time.perf_counter() - began > seconds:
                return done / (time.perf_counter() - began)
    return done / (time.perf_counter() - began)


def find_rate(folder: Path, seconds: float | None) -> float:
    """Lists a tree as ``find`` does, for some seconds at most; returns files per second."""
    done = 0
    began = time.perf_counter()
    for _, _, files in os.walk(folder):
        done += len(files)
        if seconds is not None and time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def make_names(folder: Path, count: int) -> None:
    """Makes many small files of a few different contents, 100 to a folder."""
    for number in range(count):
        below = folder / f"d{number // 100:04d}"
        if number % 100 == 0:
            below.mkdir(parents=True)
        (below / f"f{number:06d}").write_bytes(b"%d\n" % (number % 10))


def compare_s3(work: Path, rounds: int) -> list[Row]:
    """Returns the rows of the comparison; in each round, ours comes first."""
    small, large, names = work / "small", work / "large", work / "names"
    make_small(small, SMALL_FILES)
    large.mkdir()
    with (large / "large").open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    make_names(names, 100_000)
    folder = work / "server"
    folder.mkdir()
    found: dict[str, tuple[list[float], list[float]]] = {}

    def note(label: str, ours: float, theirs: float) -> None:
        pair = found.setdefault(label, ([], []))
        pair[0].append(ours)
        pair[1].append(theirs)

    with S3Server(folder) as server:
        data = OnS3(server, work)
        for each in (small, large):
            data.load(each)
        # The 100,000 plain objects that rclone would list: keys alone, which is all that counts.
        data.load(names)
        with slow_proxy(server.endpoint) as endpoint:
            slow = client(data.environment, endpoint)
            for _ in range(rounds):
                with data.mounted(endpoint, "large") as point:
                    ours = timed(_read, point / "large")
                theirs = range_gets(slow, data.bucket, "plain/large/large")
                mib = LARGE_BYTES >> 20
                note("S3 cold sequential 1 GiB, MiB/s|boto3 range GETs", mib / ours, mib / theirs)
                with data.mounted(endpoint, "small") as point:
                    ours = tar_rate(point, None)
                with data.rclone(endpoint, "small") as point:
                    theirs = tar_rate(point, PEER_SECONDS)
                note("S3 cold tar of 20,000 small files, /s|rclone mount", ours, theirs)
                with data.mounted(endpoint, "names") as point:
                    ours = find_rate(point, None)
                with data.rclone(endpoint, "names") as point:
                    theirs = find_rate(point, PEER_SECONDS)
                note("S3 cold find of 100,000 files, /s|rclone mount", ours, theirs)
    return [
        (label.partition("|")[0], label.partition("|")[2], ours, theirs)
        for label, (ours, theirs) in found.items()
    ]


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
