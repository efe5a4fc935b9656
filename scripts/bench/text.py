"""Text-like bytes: the same for the same seed, everywhere."""

from __future__ import annotations

import random

_WORDS = 5000
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"


class Text:
    """Makes text of 5,000 words of 2 to 9 letters; zstd −3 shrinks it to about 0.4."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        words = random.Random(7)
        self._words = [bytes(words.choices(_LETTERS, k=words.randint(2, 9))) for _ in range(_WORDS)]

    def __call__(self, size: int) -> bytes:
        """Returns exactly ``size`` bytes."""
        parts: list[bytes] = []
        have = 0
        while have < size:
            part = b" ".join(self.rng.choices(self._words, k=(size - have) // 6 + 8)) + b"\n"
            parts.append(part)
            have += len(part)
        return b"".join(parts)[:size]
