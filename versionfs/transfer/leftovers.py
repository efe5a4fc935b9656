"""What killed writers left in the folder for temporary files."""

from __future__ import annotations

import logging

from versionfs.errors import VersionFSError
from versionfs.repo import Store

log = logging.getLogger(__name__)


def remove_leftovers(store: Store) -> None:
    """Removes what killed writers left; a failure to do so is no reason not to write."""
    clean = getattr(store.objects, "clean_temporary", None)
    if clean is not None:
        try:
            clean()
        except VersionFSError as error:
            log.warning("cannot remove old temporary files: %s", error)
