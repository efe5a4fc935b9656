"""The rows of the tables: what is measured, in which unit, and what it has to reach.

The names of contenders are those of the peers; ``versionfs branch`` and ``versionfs snapshot`` are
``set/main`` and ``set/main@head`` in an ordinary mount, ``versionfs --read-only`` is a mount of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scripts.bench.figures import Better, Target

BRANCH: Final = "versionfs branch"
SNAPSHOT: Final = "versionfs snapshot"
READ_ONLY: Final = "versionfs --read-only"
VERSIONFS: Final = "versionfs"

OURS: Final = (VERSIONFS, BRANCH, SNAPSHOT, READ_ONLY)

SQUASH: Final = "squashfuse_ll"
BORG: Final = "borg"
RESTIC: Final = "restic"
CASYNC: Final = "casync"
EXT4: Final = "ext4"
FUSE: Final = (SQUASH, BORG, RESTIC, CASYNC)

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the issue's table, or one beside it without a target."""

    key: str
    work: str
    unit: str
    better: Better
    targets: tuple[Target, ...] = ()

    @property
    def group(self) -> str:
        """The group it is measured in: the part of the key before the dot."""
        return self.key.partition(".")[0]


def _ordinary(factor: float, *peers: str) -> tuple[Target, ...]:
    """A target of an ordinary mount holds for the branch folder and for a snapshot."""
    return tuple(Target(ours, factor, peers) for ours in (BRANCH, SNAPSHOT))


_MORE, _LESS = Better.MORE, Better.LESS

ROWS: Final = (
    Row("walk.cold", "cold walk + stat (os.walk, os.lstat)", "entries/s", _MORE,
        (*_ordinary(7, SQUASH), *_ordinary(3, BORG))),
    Row("walk.warm", "warm walk + stat", "entries/s", _MORE,
        (*_ordinary(0.7, EXT4), Target(READ_ONLY, 1.0, (EXT4,)))),
    Row("read.cold", "cold open + read + close, small files in directory order", "files/s", _MORE,
        (*_ordinary(2.5, SQUASH), *_ordinary(5, BORG))),
    Row("read.shuffled", "the same in shuffled order, 4 processes", "files/s", _MORE,
        _ordinary(2, SQUASH)),
    Row("read.warm", "warm open + read + close", "files/s", _MORE,
        (*_ordinary(2, SQUASH), Target(READ_ONLY, 0.7, (EXT4,)))),
    Row("sequential.cold-random", "cold sequential, incompressible", "MiB/s", _MORE,
        _ordinary(1.2, SQUASH)),
    Row("sequential.cold-text", "cold sequential, compressible", "MiB/s", _MORE,
        _ordinary(1.1, SQUASH)),
    Row("sequential.warm-random", "warm sequential, incompressible", "MiB/s", _MORE,
        _ordinary(1.0, *FUSE)),
    Row("sequential.warm-text", "warm sequential, compressible", "MiB/s", _MORE,
        _ordinary(1.0, *FUSE)),
    Row("random.cold", "cold random 4 KiB, compressible, large file", "reads/s", _MORE,
        _ordinary(1.3, SQUASH)),
    Row("listing.cold", "`ls -l` of one large directory, cold", "seconds", _LESS,
        _ordinary(8, SQUASH)),
    Row("listing.warm", "`ls -l` of one large directory, warm", "seconds", _LESS,
        _ordinary(10, SQUASH)),
    Row("import.seconds", "import of the mixed set, cold source", "seconds", _LESS,
        (Target(VERSIONFS, 3, (RESTIC,)), Target(VERSIONFS, 3.5, (BORG,)),
         Target(VERSIONFS, 1.0, ("mksquashfs", "mksquashfs, level 3")))),
    Row("import.stored", "stored for it", "MiB", _LESS,
        (Target(VERSIONFS, 1.03, (RESTIC, BORG, "mksquashfs", "mksquashfs, level 3"), "at most"),)),
    Row("import.v2-seconds", "import of version 2", "seconds", _LESS),
    Row("import.v2-stored", "new bytes stored for version 2", "MiB", _LESS,
        (Target(VERSIONFS, 0.5, (RESTIC, BORG), "at most"),)),
    Row("reimport.mixed", "re-import of the mixed set, nothing changed", "seconds", _LESS,
        (Target(VERSIONFS, 3, (RESTIC,)), Target(VERSIONFS, 3, ("find",), "at most"))),
    Row("reimport.tree", "re-import of the large tree, nothing changed", "seconds", _LESS,
        (Target(VERSIONFS, 3, (RESTIC,)), Target(VERSIONFS, 3, ("find",), "at most"))),
    Row("commit.one", "commit of 1 changed file in the large tree (branch folder)", "seconds",
        _LESS,
        (Target(VERSIONFS, 100, ("git",)),
         Target(VERSIONFS, 2, ("versionfs, 1,000 files",), "at most"))),
    Row("commit.cold", "the same, caches dropped", "seconds", _LESS,
        (Target(VERSIONFS, 100, ("git",)),)),
    Row("write.create", "create + write 4 KiB + close in a branch folder", "files/s", _MORE,
        (Target(BRANCH, 6000, kind="absolute"), Target(BRANCH, 0.15, (EXT4,)))),
    Row("write.sequential", "1 MiB sequential writes with fsync at the end", "MiB/s", _MORE,
        (Target(BRANCH, 0.5, (EXT4,)),)),
    Row("write.commit", "commit after that (restic: backup of the same bytes)", "seconds", _LESS,
        (Target(BRANCH, 2.5, (RESTIC,)),)),
    Row("write.commit-files", "commit of the created files (restic: backup of them)", "seconds",
        _LESS, (Target(BRANCH, 2.5, (RESTIC,)),)),
    Row("mount.first", "mount → first `ls`", "seconds", _LESS,
        (Target("versionfs, large tree", 1.2, ("versionfs, 10 files",), "at most"),)),
    Row("mount.first-cold", "mount → first `ls`, caches dropped", "seconds", _LESS),
    Row("memory.find", "daemon memory after `find` over the large tree", "MiB", _LESS,
        tuple(Target(ours, 200, kind="absolute") for ours in (BRANCH, READ_ONLY))),
    Row("memory.reads", "daemon memory after sequential reads (16 GB at full scale)", "MiB", _LESS,
        tuple(Target(ours, 200, kind="absolute") for ours in (BRANCH, READ_ONLY))),
    Row("parquet.columns", "cold read of 3 of 16 columns by pyarrow", "seconds", _LESS),
    Row("s3.sequential", "S3 at 50 ms, cold: sequential 1 GiB", "MiB/s", _MORE,
        (Target(VERSIONFS, 0.7, ("parallel range GETs",)),)),
    Row("s3.small", "S3 at 50 ms, cold: 20,000 small files", "files/s", _MORE,
        (Target(VERSIONFS, 10, ("rclone mount",)),)),
    Row("s3.find", "S3 at 50 ms, cold: `find` of 100,000 files", "files/s", _MORE,
        (Target(VERSIONFS, 50, ("rclone mount",)),)),
)  # fmt: skip

BY_KEY: Final = {row.key: row for row in ROWS}

GROUPS: Final = {
    "walk": "os.walk + lstat of 20,000 small files",
    "read": "open + read + close of small files",
    "sequential": "large files from one end to the other",
    "random": "4 KiB reads at random places of a large file",
    "listing": "ls -l of one directory of 200,000 entries",
    "import": "import of the mixed set and of its version 2, stored bytes",
    "reimport": "import again, nothing changed; mixed set and tree of 1,000,000",
    "commit": "commit of one changed file in a tree of 1,000,000",
    "write": "creating and writing in a branch folder, and the commit after it",
    "mount": "mount → first ls, 10 and 1,000,000 files",
    "memory": "the daemon's memory after find and after 16 GB of reads",
    "parquet": "reading columns of a Parquet file",
    "s3": "a store behind 50 ms of latency",
}
