"""The side of the control socket that answers: see :mod:`versionfs.fuse.control`."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from versionfs.errors import VersionFSError
from versionfs.fuse.control import MAX_REQUEST, Reply, Request, short_path
from versionfs.fuse.request import encode_error

log = logging.getLogger(__name__)


def listen(path: Path) -> socket.socket:
    """Makes the socket, in place of one that a dead daemon left.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        with short_path(path) as short:
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
            line = bytearray()
            async for part in client:
                line += part
                while b"\n" in line:
                    first, _, line = line.partition(b"\n")
                    await client.send_all(await _reply(bytes(first), answer))
                if len(line) > MAX_REQUEST:
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
        if isinstance(error, VersionFSError):
            log.warning("control request failed: %s", error)
        elif not isinstance(error, ValueError):
            log.exception("control request failed")
        reply = {"ok": False, "error": str(error) or type(error).__name__}
        if isinstance(error, VersionFSError):
            reply["failure"] = encode_error(error)
    return json.dumps(reply).encode("ascii") + b"\n"
