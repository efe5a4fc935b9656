"""Who makes a commit where nobody says."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def default_author(environ: Mapping[str, str]) -> str:
    """Returns USER@HOST; the user as the environment names it, or else the system."""
    user = environ.get("LOGNAME") or environ.get("USER")
    if not user:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container with a user id that no file knows
            user = f"uid{os.getuid()}"
    return f"{user}@{os.uname().nodename}"
