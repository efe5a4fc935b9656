"""The control socket of a mount: a line of JSON in, a line of JSON out.

``{"op": "refresh", "repository": NAME or null}``  looks at the store now; answers when the kernel
                                                   has dropped what is old
``{"op": "status"}``                               process id, mount point
``{"op": "statistics"}``                           requests by kind, inodes, directories, refreshes;
                                                   what was asked of the store, and its caches;
                                                   tree nodes that were read
``{"op": "stop"}``                                 unmounts and ends the daemon
``{"op": "workspace-…", "repository": NAME, "branch": NAME, …}``
                                                   commit, status, restore, move: see
                                                   :mod:`versionfs.fuse.workspaces`

Every answer has ``ok``; without it, ``error`` says why. Only the user (mode 0600) can connect.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

MAX_LINE: Final = 64 * 1024
MAX_REQUEST: Final = 16 * 1024 * 1024
"""Room for the message of a commit, or for many paths to restore."""

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


def ask(
    path: Path,
    request: Request,
    timeout_seconds: float,
    is_alive: Callable[[], bool] | None = None,
) -> Reply | None:
    """Sends a request and returns the answer; None if no daemon answers in time.

    With ``is_alive`` it waits as long as that says so, however long it takes: it is asked each time
    ``timeout_seconds`` have passed.
    """
    try:
        with (
            short_path(path) as short,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client,
        ):
            client.settimeout(timeout_seconds)
            client.connect(short)
            client.sendall(json.dumps(request).encode("ascii") + b"\n")
            line = bytearray()
            while not line.endswith(b"\n"):
                try:
                    part = client.recv(MAX_LINE)
                except TimeoutError:
                    if is_alive is None or not is_alive():
                        return None
                    continue
                if not part:
                    return None
                line += part
        reply: Reply = json.loads(line)
    except (OSError, ValueError):
        return None
    return reply
