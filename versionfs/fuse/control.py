"""The control socket of a mount: a line of JSON in, a line of JSON out.

``{"op": "refresh", "repository": NAME or null}``  looks at the store now; answers when the kernel
                                                   has dropped what is old
``{"op": "status"}``                               process id, mount point
``{"op": "statistics"}``                           requests by kind, inodes, directories, refreshes;
                                                   what was asked of the store, and its caches
``{"op": "stop"}``                                 unmounts and ends the daemon

Every answer has ``ok``; without it, ``error`` says why. Only the user (mode 0600) can connect.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

MAX_LINE: Final = 64 * 1024

Request = dict[str, Any]
Reply = dict[str, Any]


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Gives a short path for a socket: a sun_path holds 107 bytes, a home may be deeper."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ask(path: Path, request: Request, timeout_seconds: float) -> Reply | None:
    """Sends a request and returns the answer; None if no daemon answers in time."""
    try:
        with (
            short_path(path) as short,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client,
        ):
            client.settimeout(timeout_seconds)
            client.connect(short)
            client.sendall(json.dumps(request).encode("ascii") + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                part = client.recv(MAX_LINE)
                if not part:
                    return None
                line += part
        reply: Reply = json.loads(line)
    except (OSError, ValueError):
        return None
    return reply
