"""Compiles what can be compiled when the package is built or installed; it works without."""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = {
    "versionfs/_syscalls.c": None,
    "versionfs/tree/_numbers.c": None,
    "versionfs/fuse/_accelerator.c": "fuse3",
}
"""Sources, and the library that each needs."""


class Hook(BuildHookInterface[Any]):
    """What hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compiles for this Python, before files are gathered."""
        if self.target_name != "wheel":
            return
        for name, library in MODULES.items():
            source = Path(self.root) / name
            made = source.with_suffix(str(sysconfig.get_config_var("EXT_SUFFIX")))
            try:
                compile_module(source, made, library)
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", "") or error
                self.app.display_warning(f"mounts will be slower, without {name}: {said}")
                continue
            build_data["artifacts"].append(str(made.relative_to(self.root)))
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def compile_module(source: Path, made: Path, library: str | None) -> None:
    """Compiles a module for this Python, perhaps with a library that pkg-config knows.

    Raises:
        OSError: there is no compiler or no pkg-config.
        subprocess.CalledProcessError: headers are missing, or the compiler refuses.
    """

    def flags(what: str) -> list[str]:
        if library is None:
            return []
        done = subprocess.run(
            ["pkg-config", what, library], check=True, capture_output=True, text=True
        )
        return shlex.split(done.stdout)

    compiler = shlex.split(str(sysconfig.get_config_var("CC") or "cc"))
    new = made.with_suffix(".new")
    subprocess.run(
        [
            *compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden",
            f"-I{sysconfig.get_path('include')}", *flags("--cflags"),
            str(source), "-o", str(new), *flags("--libs"),
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    new.replace(made)  # a mount may have the old one loaded
