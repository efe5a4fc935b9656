"""``versionfs stats``: how large the store is, and what deduplication and compression saved."""

from __future__ import annotations

import dataclasses

import click

from versionfs.cli.command import command
from versionfs.cli.formats import human_size
from versionfs.cli.session import Session


@command("stats", example="versionfs stats --json")
@click.pass_obj
def stats_command(session: Session) -> None:
    """Shows the size of the store: logical and stored bytes, ratios, packs.

    Plain lines are NAME<TAB>VALUE, with the names of --json; sizes are in bytes.
    """
    from versionfs.cli.targets import here_store

    with session.open_store(here_store(session)) as store:
        values = {"store": store.url, "store_id": store.id}
        found = store.statistics()
    numbers = {
        **dataclasses.asdict(found),
        "dedup_ratio": round(found.dedup_ratio, 3),
        "compression_ratio": round(found.compression_ratio, 3),
        "total_ratio": round(found.total_ratio, 3),
    }
    out = session.output
    if out.json:
        out.document({**values, **numbers})
        return
    pairs = list(values.items())
    for name, value in numbers.items():
        pairs.append((name, _text(name, value, terminal=out.terminal)))
    if out.terminal:
        pairs = [(name.removesuffix("_bytes").replace("_", " "), text) for name, text in pairs]
    out.pairs(pairs)


def _text(name: str, value: object, *, terminal: bool) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" + (" x" if terminal and name.endswith("_ratio") else "")
    if isinstance(value, int) and terminal:
        return human_size(value) if name.endswith("_bytes") else f"{value:,}"
    return "" if value is None else str(value)
