"""The compiled part of a mount, if it was built: requests are answered without a coroutine each.

It stands between pyfuse3 and libfuse (see ``_accelerator.c``), so it must be loaded before pyfuse3.
A mount works without it, slower.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from versionfs.syscalls import SWITCH

log = logging.getLogger(__name__)

_VERSION: Final = 4
"""Of what the module and its handlers tell each other."""

Answer = Callable[..., Any]
"""Answers one kind of request. None: pyfuse3 shall do it; a negative number: an errno."""


class Accelerator(Protocol):
    """The compiled module."""

    def arm(
        self,
        handlers: Mapping[str, Answer],
        without_open: bool,
        without_opendir: bool,
        spins: bool,
    ) -> None:
        """Serves the session that ``pyfuse3.init`` makes next by these functions.

        ``without_open`` and ``without_opendir`` let the kernel do without these requests: the
        handles of files, or of directories, are their numbers then.
        """

    def start(self) -> bool:
        """Begins, after the mount was made; False when pyfuse3 serves it alone."""

    def disarm(self) -> None:
        """Lets pyfuse3 alone from now on."""

    def counts(self) -> dict[str, int]:
        """Returns how many requests were answered here, by kind."""


_loaded: Accelerator | None = None


def load() -> Accelerator | None:
    """Loads the compiled part, if it is there and wanted; None if not.

    Raises:
        RuntimeError: pyfuse3 was loaded before.
    """
    global _loaded  # noqa: PLW0603  (there is one libfuse in a process)
    if _loaded is not None or os.environ.get(SWITCH) == "0":
        return _loaded
    if "pyfuse3" in sys.modules:
        raise RuntimeError("pyfuse3 was loaded before the accelerator")
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        module = importlib.import_module("versionfs.fuse._accelerator")
    except ImportError as error:
        log.info("the mount goes without its compiled part: %s", error)
        return None
    finally:
        sys.setdlopenflags(flags)
    if getattr(module, "VERSION", 1) != _VERSION:
        log.warning("the mount goes without its compiled part, which is of another version")
        return None
    _loaded = cast(Accelerator, module)
    return _loaded


def loaded() -> Accelerator | None:
    """Returns the compiled part if :meth:`load` found it."""
    return _loaded


def added_to(requests: Mapping[str, int]) -> dict[str, int]:
    """Returns counts of requests by kind with those that were answered here."""
    total = Counter(requests)
    if _loaded is not None:
        total.update({kind: count for kind, count in _loaded.counts().items() if count})
    return dict(total)
