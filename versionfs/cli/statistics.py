"""``versionfs stats``: how large the store is, what was saved, what its server was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from versionfs.cli.command import command
from versionfs.cli.session import Session
from versionfs.readable import human_size

if TYPE_CHECKING:
    from versionfs.repo import Store


@command("stats", example="versionfs stats --json")
@click.pass_obj
def stats_command(session: Session) -> None:
    """Shows the size of the store: logical and stored bytes, ratios, packs.

    Of a store behind a network also: requests, retries, bytes sent and received, and how the caches
    did, for this command and for each mount of the store since it began.

    Plain lines are NAME<TAB>VALUE, with the names of --json; sizes are in bytes.
    """
    from versionfs.cli.targets import here_store

    with session.open_store(here_store(session)) as store:
        values = {"store": store.url, "store_id": store.id}
        found = store.statistics()
        transfers = store.transfers()._asdict()
        is_local = store.objects.is_local
        mounts = _mounts(session, store)
    numbers = {
        **found._asdict(),
        "dedup_ratio": round(found.dedup_ratio, 3),
        "compression_ratio": round(found.compression_ratio, 3),
        "total_ratio": round(found.total_ratio, 3),
    }
    out = session.output
    if out.json:
        out.document({**values, **numbers, "transfers": transfers, "mounts": mounts})
        return
    pairs = list(values.items())
    if not is_local:
        numbers |= _flat("", transfers)
        for mount in mounts:
            pairs.append(("mount", mount["mountpoint"]))
            numbers |= _flat(f"{mount['mountpoint']}: ", mount["transfers"])
    for name, value in numbers.items():
        pairs.append((name, _text(name, value, terminal=out.terminal)))
    if out.terminal:
        pairs = [(name.removesuffix("_bytes").replace("_", " "), text) for name, text in pairs]
    out.pairs(pairs)


def _mounts(session: Session, store: Store) -> list[dict[str, Any]]:
    """Returns what each mount of the store asked of its server."""
    if not (store.settings.state_dir / "mounts").is_dir():
        return []
    from versionfs.fuse import statistics

    return [
        {
            "mountpoint": str(info.mountpoint),
            "pid": info.pid,
            "transfers": reply.get("transfers", {}),
            **reply.get("statistics", {}),
        }
        for info, reply in statistics(session.settings_for(store.settings.store), store.id)
    ]


def _flat(prefix: str, transfers: dict[str, Any]) -> dict[str, Any]:
    requests = {f"requests_{kind}": count for kind, count in transfers["requests"].items()}
    rest = {name: value for name, value in transfers.items() if name != "requests"}
    return {prefix + name: value for name, value in (requests | rest).items()}


def _text(name: str, value: object, *, terminal: bool) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" + (" x" if terminal and name.endswith("_ratio") else "")
    if isinstance(value, int) and terminal:
        return human_size(value) if name.endswith("_bytes") else f"{value:,}"
    return "" if value is None else str(value)
