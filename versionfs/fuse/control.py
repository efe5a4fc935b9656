"""The control socket of a mount: a line of JSON in, a line of JSON out.

``{"op": "refresh", "repository": NAME or null}``  answers when the kernel has dropped what is old
``{"op": "status"}``                               process id, mount point
``{"op": "statistics"}``                           requests by kind, inodes, directories, refreshes
``{"op": "stop"}``                                 unmounts and ends the daemon

Every answer has ``ok``; without it, ``error`` says why. Only the user (mode 0600) can connect.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

log = logging.getLogger(__name__)

_MAX_LINE: Final = 64 * 1024

Request = dict[str, Any]
Reply = dict[str, Any]


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Gives a short path for a socket: a sun_path holds 107 bytes, a home may be deeper."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Makes the socket, in place of one that a dead daemon left.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        with _short(path) as short:
            listener.bind(short)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(64)
    listener.setblocking(False)
    return listener


async def serve(listener: socket.socket, answer: Callable[[Request], Awaitable[Reply]]) -> None:
    """Answers requests, for ever."""
    stream = trio.SocketListener(trio.socket.from_stdlib_socket(listener))

    async def connection(client: trio.SocketStream) -> None:
        try:
            line = b""
            async for part in client:
                line += part
                while b"\n" in line:
                    first, _, line = line.partition(b"\n")
                    await client.send_all(await _reply(first, answer))
                if len(line) > _MAX_LINE:
                    return
        except trio.BrokenResourceError:
            pass
        finally:
            await client.aclose()

    await trio.serve_listeners(connection, [stream])


async def _reply(line: bytes, answer: Callable[[Request], Awaitable[Reply]]) -> bytes:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ValueError("a request is an object")
        reply = {"ok": True, **await answer(request)}
    except Exception as error:
        if not isinstance(error, ValueError):
            log.exception("control request failed")
        reply = {"ok": False, "error": str(error) or type(error).__name__}
    return json.dumps(reply).encode("ascii") + b"\n"


def ask(path: Path, request: Request, timeout_seconds: float) -> Reply | None:
    """Sends a request and returns the answer; None if no daemon answers in time."""
    try:
        with (
            _short(path) as short,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client,
        ):
            client.settimeout(timeout_seconds)
            client.connect(short)
            client.sendall(json.dumps(request).encode("ascii") + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                part = client.recv(_MAX_LINE)
                if not part:
                    return None
                line += part
        reply: Reply = json.loads(line)
    except (OSError, ValueError):
        return None
    return reply
