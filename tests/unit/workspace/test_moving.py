"""A workspace's folder is renamed while others go on changing what is in it."""

from __future__ import annotations

import threading

from versionfs.workspace.base import BASE_KEY
from versionfs.workspace.inode import ROOT, Inode
from versionfs.workspace.journal import Mutation
from versionfs.workspace.places import owner_of
from versionfs.workspace.records import Records, remove

ROUNDS = 20
BATCHES = 20_000


def opened(folder) -> Records:
    root = Inode(ROOT, 0o40755, 0, 0, 1, 0, 0, 0)
    return Records(folder, root, lambda: bytes(96))


def test_nothing_is_lost_of_what_is_changed_while_the_folder_moves(tmp_path):
    first, second = tmp_path / "r" / "main", tmp_path / "r" / "try"
    records = opened(first)
    records.apply([(b"mfirst", b"1")])
    done: list[Mutation] = []
    layers: list[int] = []

    def change() -> None:
        for number in range(BATCHES):
            key = b"n%08d" % number
            records.apply([(key, b"x" * 50)])
            done.append((key, b"x" * 50))
            if number % 50 == 0:
                records.staging.create(number + 1)
                records.staging.write(number + 1, 0, b"%d" % number)
                records.staging.sync(number + 1)
                layers.append(number + 1)
            if number % 100 == 50:
                records.staging.remove(layers.pop())

    worker = threading.Thread(target=change)
    worker.start()
    for number in range(ROUNDS):
        target = (second, first)[number % 2]
        records.move(target)
        assert owner_of(target) is not None
        assert not (first, second)[number % 2].exists()
    worker.join()
    records.move(second)
    records.close()
    assert not first.exists()
    again = opened(second)
    try:
        assert again.get(BASE_KEY) == bytes(96)
        assert list(again.scan(b"n")) == done
        assert sorted(again.staging.layers()) == layers
        assert [again.staging.read(layer, 0, 100) for layer in layers] == [
            b"%d" % (layer - 1) for layer in layers
        ]
    finally:
        again.close()
    remove(second)
    assert not second.exists()
