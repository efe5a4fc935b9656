"""Whatever happens to its cache, a source reads the bytes of the pack."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.remote import FillingFolder
from versionfs.chunkstore import DiskCache, FetchingSource, PackRange, Scan
from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.pack import pack_key
from versionfs.types import PackId

DATA = random.Random(3).randbytes(20 * GRANULE_BYTES + 99)
PACKS = [PackId(bytes([number]) * 32) for number in range(3)]


class Reader:
    """Who reads ahead."""


READER = Reader()

pack = st.sampled_from(PACKS)
start = st.integers(0, len(DATA) - 1)
length = st.integers(1, 6 * GRANULE_BYTES)
step = st.one_of(
    st.tuples(st.sampled_from(["read", "scan", "ask", "want", "prefetch"]), pack, start, length),
    st.tuples(
        st.sampled_from(["forget", "cancel", "leave", "lose", "reopen"]), pack, start, length
    ),
)


@settings(max_examples=40)
@given(st.lists(step, max_size=25), st.integers(4, 60))
def test_a_source_reads_the_bytes_of_the_pack(
    steps: list[tuple[str, PackId, int, int]], bound: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        remote = FillingFolder(Path(folder) / "store")
        for each in PACKS:
            remote.inner.put(pack_key(each), DATA)

        def opened() -> FetchingSource:
            cache = DiskCache(Path(folder) / "packs", bound * GRANULE_BYTES)
            return FetchingSource(remote, cache, 3)

        source = opened()
        try:
            for what, name, at, size in steps:
                file = Path(folder) / "packs" / name.hex()[:2] / name.hex()
                size = min(size, len(DATA) - at)
                expected = DATA[at : at + size]
                match what:
                    case "read" | "scan":
                        scan = Scan.NEAR if what == "scan" else Scan.NONE
                        assert source.read(name, at, size, scan) == expected
                    case "ask":
                        try:
                            with never_blocking():
                                assert source.read(name, at, size) == expected
                        except WouldBlock as absent:
                            fetched = absent.fetch()
                            assert fetched == expected
                    case "want":
                        source.want([PackRange(name, at, size)])
                    case "prefetch":
                        source.prefetch([PackRange(name, at, size)], READER)
                    case "forget":
                        source.forget(name)
                    case "cancel":
                        source.cancel(READER)
                    case "leave":
                        source.leave(READER)
                    case "lose":
                        file.unlink(missing_ok=True)
                    case "reopen":
                        source.close()
                        source = opened()
                assert source.cache.usage().held_bytes <= bound * GRANULE_BYTES
        finally:
            source.close()
