"""Compiles the accelerator when the package is built or installed; goes without it if it must."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("versionfs/fuse/_accelerator.c")


class Hook(BuildHookInterface[Any]):
    """What hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles for this Python, before files are gathered."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        made = root / SOURCE.with_suffix(str(sysconfig.get_config_var("EXT_SUFFIX")))
        try:
            compile_module(root / SOURCE, made)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            self.app.display_warning(f"mounts will be slower, without a compiled part: {said}")
            return
        build_data["artifacts"].append(f"{SOURCE.with_suffix('')}*.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_module(source: Path, made: Path) -> None:
    """Compiles a module for this Python with libfuse.

    Raises:
        OSError: there is no compiler or no pkg-config.
        subprocess.CalledProcessError: headers are missing, or the compiler refuses.
    """

    def pkg_config(what: str) -> list[str]:
        done = subprocess.run(
            ["pkg-config", what, "fuse3"], check=True, capture_output=True, text=True
        )
        return shlex.split(done.stdout)

    compiler = shlex.split(str(sysconfig.get_config_var("CC") or "cc"))
    new = made.with_suffix(".new")
    subprocess.run(
        [
            *compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden",
            f"-I{sysconfig.get_path('include')}", *pkg_config("--cflags"),
            str(source), "-o", str(new), *pkg_config("--libs"),
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    new.replace(made)  # a mount may have the old one loaded


if __name__ == "__main__":
    compile_module(Path(sys.argv[1]), Path(sys.argv[2]))
