"""An HTTP proxy in front of an S3 server: adds latency, counts requests, breaks some of them.

A thread for each connection; bodies go from socket to socket inside the kernel, so that the proxy
costs little beside the latency it adds. To keep it out of a measured process altogether::

    python -m tests.support.proxy http://127.0.0.1:8333 --latency 0.05

prints its endpoint, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

_HEAD_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its number from 1 on, method, path with query, and headers (names in small)."""

    number: int
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers by itself; the server never hears of the request."""

    status: int = 500
    code: str = "InternalError"


@dataclass(frozen=True, slots=True)
class AnswerAfter:
    """The server does what it is asked; the client gets this answer instead of the real one."""

    status: int = 500
    code: str = "InternalError"


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection breaks before the server hears of the request."""


@dataclass(frozen=True, slots=True)
class LoseReply:
    """The server does what it is asked, then the connection breaks."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """The reply ends after so many bytes of its body, which it promised to be longer."""

    after: int = 1000


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of the reply's body is wrong, at this offset."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Slow:
    """The reply begins so many seconds late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drip:
    """After so many bytes the reply's body comes one byte at a time, with a pause before each."""

    seconds: float
    after: int = 0


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing is ever answered; the server never hears of the request."""


@dataclass(frozen=True, slots=True)
class Without:
    """The server gets the request without some headers (named in small), as if it knew them not."""

    names: tuple[str, ...]
    access_key: str
    secret_key: str


Fault = Answer | AnswerAfter | Reset | LoseReply | Truncate | Flip | Slow | Drip | Hang | Without
Plan = Callable[[Request], Fault | None]


def on(method: str, *faults: Fault, path: str = "") -> Plan:
    """Returns a plan that breaks the first requests of a method, one by one, as ``faults`` say.

    ``path`` has to occur in the path of those requests.
    """
    left = list(faults)
    lock = threading.Lock()

    def plan(request: Request) -> Fault | None:
        with lock:
            if left and request.method == method and path in request.path:
                return left.pop(0)
        return None

    return plan


class Proxy:
    """A proxy in front of ``target`` (a URL). ``latency`` (seconds) and ``plan`` may change."""

    def __init__(self, target: str, latency: float = 0.0, plan: Plan | None = None) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.latency = latency
        self.plan = plan
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    @property
    def endpoint(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def count(self) -> Counter[str]:
        """Returns how many requests of each method came in."""
        with self._lock:
            return Counter(request.method for request in self.requests)

    def forget(self) -> None:
        """Starts counting anew."""
        with self._lock:
            self.requests.clear()
            self.most_at_once = self._now

    def stop(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- connections -----------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()

    @contextlib.contextmanager
    def _open(self, connection: socket.socket) -> Iterator[None]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(connection)
        try:
            with connection:
                yield
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _serve(self, client: socket.socket) -> None:
        try:
            with self._open(client), contextlib.suppress(OSError):
                reader = _Reader(client)
                first = reader.head()
                if first is None:
                    return
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    _break(client)
                    return
                with self._open(server):
                    _Exchanges(self, reader, _Reader(server)).run(first)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def received(self, method: str, path: str, headers: dict[str, str]) -> Request:
        """Counts a request that begins."""
        with self._lock:
            request = Request(len(self.requests) + 1, method, path, headers)
            self.requests.append(request)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        return request

    def answered(self) -> None:
        """Counts a request that ends."""
        with self._lock:
            self._now -= 1

    def wait(self, seconds: float) -> None:
        """Waits, unless the proxy is stopped."""
        if seconds:
            self._stopped.wait(seconds)

    def hang(self) -> None:
        """Waits until the proxy is stopped."""
        self._stopped.wait()


class _Reader:
    """What comes in on a connection: heads are buffered, bodies are not."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = b""

    def head(self) -> tuple[str, list[tuple[str, str]]] | None:
        """Returns the first line and the headers; None at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return first, [(name.strip(), value.strip()) for name, value in pairs]

    def _more(self) -> bool:
        data = self.connection.recv(_HEAD_BYTES)
        self._buffer += data
        return bool(data)

    def line(self) -> bytes:
        """Returns what comes up to the next line's end, with it."""
        while b"\r\n" not in self._buffer:
            if not self._more():
                raise ConnectionError
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line + b"\r\n"

    def read(self, length: int) -> bytes:
        """Returns exactly so many bytes."""
        while len(self._buffer) < length:
            if not self._more():
                raise ConnectionError
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def relay(self, length: int, to: socket.socket) -> None:
        """Sends so many bytes on."""
        begun, self._buffer = self._buffer[:length], self._buffer[length:]
        to.sendall(begun)
        rest = length - len(begun)
        if rest > _HEAD_BYTES:
            _splice(self.connection, to, rest)
        elif rest:
            to.sendall(self.read(rest))

    def relay_chunks(self, to: socket.socket) -> None:
        """Sends a body of the transfer encoding "chunked" on."""
        while True:
            line = self.line()
            size = int(line.split(b";")[0], 16)
            to.sendall(line + self.read(size + 2))
            if not size:
                return


class _Exchanges:
    """The requests of one connection, one after the other."""

    def __init__(self, proxy: Proxy, client: _Reader, server: _Reader) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server

    def run(self, head: tuple[str, list[tuple[str, str]]] | None) -> None:
        while head is not None and self._exchange(*head):
            head = self._client.head()

    def _exchange(self, first: str, headers: list[tuple[str, str]]) -> bool:
        """Does one; tells whether the connection goes on."""
        method, path, _ = first.split(" ", 2)
        request = self._proxy.received(
            method, path, {name.lower(): value for name, value in headers}
        )
        try:
            self._proxy.wait(self._proxy.latency)
            fault = self._proxy.plan(request) if self._proxy.plan else None
            client = self._client.connection
            if isinstance(fault, Reset):
                _break(client)
                return False
            if isinstance(fault, Hang):
                self._proxy.hang()
                return False
            if "expect" in request.headers:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                headers = [(name, value) for name, value in headers if name.lower() != "expect"]
            length = int(request.headers.get("content-length", 0))
            if isinstance(fault, Answer):
                self._client.read(length)
                _answer(client, method, fault.status, fault.code)
                return False
            if isinstance(fault, Without):
                body = self._client.read(length)
                headers = _sign_again(fault, method, path, headers, body)
                self._server.connection.sendall(_head(first, headers) + body)
            else:
                self._server.connection.sendall(_head(first, headers))
                self._client.relay(length, self._server.connection)
            return self._reply(method, fault)
        finally:
            self._proxy.answered()

    def _reply(self, method: str, fault: Fault | None) -> bool:
        client = self._client.connection
        head = self._server.head()
        while head is not None and head[0].split(" ", 2)[1] == "100":
            head = self._server.head()
        if head is None:
            _break(client)
            return False
        first, headers = head
        status = int(first.split(" ", 2)[1])
        named = {name.lower(): value for name, value in headers}
        chunked = "chunked" in named.get("transfer-encoding", "")
        length = int(named.get("content-length", 0))
        if method == "HEAD" or status in (204, 304):
            chunked, length = False, 0
        if isinstance(fault, LoseReply):
            _break(client)
            return False
        if isinstance(fault, AnswerAfter):
            _answer(client, method, fault.status, fault.code)
            return False
        if isinstance(fault, Slow):
            self._proxy.wait(fault.seconds)
        client.sendall(_head(first, headers))
        if chunked:
            self._server.relay_chunks(client)
        elif isinstance(fault, Truncate) and length:
            client.sendall(self._server.read(min(fault.after, length - 1)))
            return False
        elif isinstance(fault, Flip) and length:
            body = bytearray(self._server.read(length))
            body[fault.offset % length] ^= 1
            client.sendall(body)
        elif isinstance(fault, Drip) and length > fault.after:
            self._server.relay(fault.after, client)
            for _ in range(length - fault.after):
                self._proxy.wait(fault.seconds)
                client.sendall(self._server.read(1))
        else:
            self._server.relay(length, client)
        return named.get("connection", "").lower() != "close"


def _head(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _answer(client: socket.socket, method: str, status: int, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
    head = _head(
        f"HTTP/1.1 {status} Fault",
        [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ],
    )
    client.sendall(head if method == "HEAD" else head + body)


def _break(connection: socket.socket) -> None:
    """Ends a connection with a reset, as a router or a server that dies does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _splice(source: socket.socket, target: socket.socket, length: int) -> None:
    reading, writing = os.pipe()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE_BYTES)
        while length:
            held = os.splice(source.fileno(), writing, min(length, _PIPE_BYTES))
            if not held:
                raise ConnectionError
            length -= held
            while held:
                held -= os.splice(reading, target.fileno(), held)
    finally:
        os.close(reading)
        os.close(writing)


def _sign_again(
    fault: Without,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> list[tuple[str, str]]:
    """Returns the headers that are left, signed: the signature covered all."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    dropped = ("authorization", "x-amz-date", *fault.names)
    kept = {name: value for name, value in headers if name.lower() not in dropped}
    host = next(value for name, value in headers if name.lower() == "host")
    request = AWSRequest(method=method, url=f"http://{host}{path}", headers=kept, data=body)
    credentials = Credentials(fault.access_key, fault.secret_key)
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    return [(str(name), str(value)) for name, value in request.headers.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP proxy that adds latency to each request.")
    parser.add_argument("target", help="http://host:port of the server")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for each request")
    options = parser.parse_args()
    with Proxy(options.target, options.latency) as proxy:
        print(proxy.endpoint, flush=True)
        sys.stdin.read()
        print(dict(proxy.count()), flush=True)


if __name__ == "__main__":
    main()
