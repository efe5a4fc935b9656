"""The LMDB index: a cache that several processes share, grows by itself and heals."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from tests.support.stores import ROOT, settings_in
from versionfs.errors import StorageTransientError
from versionfs.index import ChunkIndex, Environment, KnownRefs
from versionfs.repo import Store
from versionfs.types import Location, PackId

PACK = PackId(b"p" * 32)
OTHER = PackId(b"q" * 32)


def where(number: int, pack: PackId = PACK) -> Location:
    return Location(pack, number, number + 1, number + 2, number + 3)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    environment = Environment(tmp_path / "index")
    yield environment
    environment.close()


def test_locations_come_back(environment: Environment) -> None:
    index = ChunkIndex(environment)
    index.add_pack(PACK, [(key(i), where(i)) for i in range(1000)], size_bytes=9)
    index.add_pack(OTHER, [(key(1), where(7, OTHER))], [(b"n" * 48, where(9, OTHER))], size_bytes=9)
    assert index.locate([key(5), key(1), b"x" * 32]) == [where(5), where(7, OTHER), None]
    assert index.locate([b"n" * 48], b"places") == [where(9, OTHER)]
    assert index.known_packs().keys() == {PACK, OTHER}
    assert index.totals() == (1000, sum(i + 3 for i in range(1000)) - 4 + 10, {OTHER})


def test_chunks_of_a_forgotten_pack_are_absent(environment: Environment) -> None:
    index = ChunkIndex(environment)
    index.add_pack(PACK, [(key(1), where(1))], size_bytes=9)
    index.add_pack(OTHER, [(key(2), where(2, OTHER))], size_bytes=9)
    index.forget_packs([PACK, b"never seen".ljust(32)])
    assert index.locate([key(1), key(2)]) == [None, where(2, OTHER)]
    assert index.known_packs().keys() == {OTHER}
    third = PackId(b"r" * 32)
    index.add_pack(third, [(key(3), where(3, third))], size_bytes=9)
    assert index.locate([key(1)]) == [None]


def damage(environment: Environment, database: bytes, at: int) -> None:
    """Flips a bit in the first value of a database."""

    def work(transaction: lmdb.Transaction) -> None:
        cursor = transaction.cursor(environment.database(database))
        assert cursor.first()
        name, value = bytes(cursor.key()), bytearray(cursor.value())
        value[at] ^= 1
        transaction.put(name, bytes(value), db=environment.database(database))

    environment.write(work)


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16, 20, 23])
def test_a_damaged_row_is_absent_never_wrong(environment: Environment, at: int) -> None:
    index = ChunkIndex(environment)
    index.add_pack(PACK, [(key(1), where(1))], size_bytes=9)
    damage(environment, b"chunks", at)
    assert index.locate([key(1)]) == [None]


@pytest.mark.parametrize("at", [0, 15, -1])
def test_a_damaged_pack_number_is_absent_never_wrong(environment: Environment, at: int) -> None:
    ChunkIndex(environment).add_pack(PACK, [(key(1), where(1))], size_bytes=100)
    damage(environment, b"pack-numbers", at)
    assert ChunkIndex(environment).locate([key(1)]) == [None]


def test_a_number_that_has_come_to_mean_another_pack_is_absent_never_wrong(
    environment: Environment,
) -> None:
    """As when another process makes the index anew between two batches of a large pack."""
    ChunkIndex(environment).add_pack(PACK, [(key(1), where(1))], size_bytes=100)
    number = (1).to_bytes(4, "big")
    environment.write(lambda t: t.put(number, OTHER, db=environment.database(b"pack-numbers")))
    environment.write(lambda t: t.put(OTHER, number + bytes(8), db=environment.database(b"packs")))
    assert ChunkIndex(environment).locate([key(1)]) == [None]


def test_refs_are_remembered(environment: Environment) -> None:
    refs = KnownRefs(environment)
    refs.put("repos/a/branches/main", b"1")
    refs.put("repos/a/branches/main", b"2", "v2")
    refs.put("repos/b/branches/main", b"3")
    known = refs.get("repos/a/branches/main")
    assert known is not None
    assert known[:2] == (b"2", "v2")
    assert refs.below("repos/a/") == {"repos/a/branches/main": known}
    assert list(refs.below("repos/")) == ["repos/a/branches/main", "repos/b/branches/main"]
    refs.remove("repos/a/branches/main")
    refs.remove("repos/a/branches/main")
    assert refs.get("repos/a/branches/main") is None


@pytest.mark.parametrize("row", [b"", b'{"commit": "0"}', b"\x01" + bytes(40)])
def test_rows_of_refs_that_are_damaged_count_as_unknown(
    environment: Environment, row: bytes
) -> None:
    environment.write(lambda t: t.put(b"key", row or b"x", db=environment.database(b"refs")))
    refs = KnownRefs(environment)
    assert refs.get("key") is None
    assert refs.below("k") == {}
    refs.put("key", b"1")
    assert refs.below("k")["key"].value == b"1"


def test_the_map_grows_beyond_its_first_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("versionfs.index.environment._INITIAL_MAP_BYTES", 1 << 20)
    environment = Environment(tmp_path / "index")
    index = ChunkIndex(environment)
    for pack in range(20):
        name = PackId(bytes([pack]) * 32)
        rows = [(key(pack * 5000 + i), where(i, name)) for i in range(5000)]
        index.add_pack(name, rows, size_bytes=9)
    assert index.totals()[0] == 100_000
    environment.close()
    again = Environment(tmp_path / "index")
    assert ChunkIndex(again).locate([key(5003)]) == [where(3, PackId(b"\1" * 32))]
    again.close()


def test_several_processes_grow_the_map_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; import versionfs.index.environment as e\n"
        "e._INITIAL_MAP_BYTES = 1 << 20\n"
        "from versionfs.index import *; from tests.unit.index.test_index import *\n"
        "number = int(sys.argv[2])\n"
        "environment = Environment(Path(sys.argv[1])); index = ChunkIndex(environment)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for turn in range(30):\n"
        "    name = PackId(bytes([number, turn]) * 16)\n"
        "    base = (number * 30 + turn) * 1000\n"
        "    rows = [(key(base + i), where(i, name)) for i in range(1000)]\n"
        "    index.add_pack(name, rows, size_bytes=9)\n"
        "    assert index.locate([key(base + 5)]) == [where(5, name)]\n"
        "environment.close(); print('done')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "index")]
    processes = [
        subprocess.Popen(
            [*command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 4
    environment = Environment(tmp_path / "index")
    assert ChunkIndex(environment).totals()[0] == 4 * 30 * 1000
    assert len(ChunkIndex(environment).known_packs()) == 120
    environment.close()


def test_an_index_made_anew_by_another_process_is_not_mixed_with_the_old_one(
    tmp_path: Path,
) -> None:
    """Pack numbers begin anew; what this process knows of them must go with the old index."""
    environment = Environment(tmp_path / "index")
    index = ChunkIndex(environment)
    index.add_pack(PACK, [(key(1), where(1))], size_bytes=9)
    assert index.locate([key(1)]) == [where(1)]
    code = (
        "import sys; from tests.unit.index.test_index import *\n"
        "environment = Environment(Path(sys.argv[1])); environment.rebuild('test')\n"
        "ChunkIndex(environment).add_pack(OTHER, [(key(2), where(2, OTHER))], size_bytes=9)\n"
        "environment.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "index")], cwd=ROOT, check=True)
    # So many lookups that the map is let go of, and the files opened again.
    index.locate([key(0)] * 20_000)
    assert index.locate([key(1), key(2)]) == [None, where(2, OTHER)]
    environment.close()


def test_threads_may_share_an_index_that_is_opened_again_meanwhile(
    environment: Environment,
) -> None:
    index = ChunkIndex(environment)
    index.add_pack(PACK, [(key(i), where(i)) for i in range(500)], size_bytes=9)
    failures: list[object] = []

    def look() -> None:
        try:
            for _ in range(100):
                found = index.locate([key(i) for i in range(500)])
                if found != [where(i) for i in range(500)]:
                    failures.append(found)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert environment.generation > 5


def test_opening_a_store_twice_in_a_process_is_refused_and_harms_nothing(
    store: Store, home: Path
) -> None:
    store.index.add_pack(PACK, [(key(1), where(1))], size_bytes=9)
    with pytest.raises(StorageTransientError, match="open already"):
        Store.open(settings_in(home))
    assert store.index.locate([key(1)]) == [where(1)]
    store.close()
    with Store.open(settings_in(home)) as again:
        assert again.index.locate([key(1)]) == [where(1)]


def test_a_closed_index_says_so(environment: Environment) -> None:
    environment.close()
    environment.close()
    with pytest.raises(StorageTransientError, match="closed"):
        ChunkIndex(environment).locate([key(1)])


def test_an_index_of_another_schema_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = Environment(tmp_path / "index")
    ChunkIndex(environment).add_pack(PACK, [(key(1), where(1))], size_bytes=9)
    environment.write(lambda t: t.put(b"schema", b"0", db=environment.database(b"meta")))
    environment.close()
    again = Environment(tmp_path / "index")
    assert ChunkIndex(again).known_packs() == {}
    assert "damaged" in caplog.text
    again.close()


def test_a_folder_that_cannot_hold_an_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageTransientError, match=r"cannot open the index in .*file"):
        Environment(tmp_path / "file" / "index")
