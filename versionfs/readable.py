"""Numbers as people read them."""

from __future__ import annotations


def human_size(size_bytes: int) -> str:
    """Returns a number of bytes in the binary unit that suits it: ``12 B``, ``3.4 MiB``."""
    import humanize

    text = humanize.naturalsize(size_bytes, binary=True)
    return text.replace(" Bytes", " B").replace(" Byte", " B")


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Returns a number with its noun: ``1 file``, ``12,000 files``."""
    noun = singular if number == 1 else (plural or singular + "s")
    return f"{number:,} {noun}"
