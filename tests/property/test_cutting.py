"""The cut points of a file depend on its bytes alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.stores import TINY_CHUNKS, WHOLE_CHUNKS
from versionfs.chunking import ChunkingParameters, Cut, Cutter
from versionfs.chunking.cut import LOOK_AHEAD_BYTES

MAX = TINY_CHUNKS.max_bytes

Segment = tuple[str, int]
segments = st.lists(
    st.one_of(
        st.tuples(st.just("noise"), st.integers(1, 4000)),
        st.tuples(st.just("zeros"), st.integers(1, 3 * MAX)),
        st.tuples(st.just("zeros"), st.integers(MAX - 2, MAX + 2)),
        st.tuples(st.just("text"), st.integers(1, 3000)),
    ),
    max_size=8,
)


def render(parts: Sequence[Segment]) -> bytes:
    """Noise has no run of zeros; that of one call differs from that of the next."""
    out = bytearray()
    state = 12345
    for kind, length in parts:
        if kind == "zeros":
            out += bytes(length)
        elif kind == "text":
            out += (b"all work and no play " * (length // 21 + 1))[:length]
        else:
            for _ in range(length):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                out.append(1 + (state >> 16) % 255)
    return bytes(out)


def cuts_of(
    data: bytes, sizes: Sequence[int], parameters: ChunkingParameters = TINY_CHUNKS
) -> list[tuple[int, int, bytes | None]]:
    """Feeds the data in pieces of these sizes, over and over."""
    cutter = Cutter(parameters)
    cuts: list[Cut] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        turn += 1
        cuts += cutter.feed(data[at : at + size])
        at += size
    cuts += cutter.finish()
    return [(c.offset, c.length, None if c.data is None else bytes(c.data)) for c in cuts]


def holes_of(data: bytes) -> list[tuple[int, int]]:
    """The maximal runs of zeros that are long enough, found the slow way."""
    holes = []
    start = 0
    while start < len(data):
        end = start
        while end < len(data) and data[end] == 0:
            end += 1
        if end - start >= MAX:
            holes.append((start, end - start))
        start = max(end, start + 1)
    return holes


@given(segments)
@example([])
@example([("zeros", MAX)])
@example([("noise", 1), ("zeros", MAX - 1), ("noise", 1)])
def test_cuts_put_together_are_the_file(parts: list[Segment]) -> None:
    data = render(parts)
    cuts = cuts_of(data, ())
    assert b"".join(bytes(n) if piece is None else piece for _, n, piece in cuts) == data
    at = 0
    for offset, length, piece in cuts:
        assert offset == at
        assert length > 0
        if piece is not None:
            assert len(piece) == length <= MAX
        at += length


@given(segments, st.lists(st.integers(1, 5000), min_size=1, max_size=4))
@example([("zeros", 3 * MAX)], [1])
@example([("noise", 700), ("zeros", MAX), ("noise", 700)], [MAX // 2 - 1, 3])
def test_cuts_do_not_depend_on_the_pieces_they_are_fed_in(
    parts: list[Segment], sizes: list[int]
) -> None:
    data = render(parts)
    assert cuts_of(data, sizes) == cuts_of(data, ())
    assert cuts_of(data, sizes, WHOLE_CHUNKS) == cuts_of(data, (), WHOLE_CHUNKS)


@given(segments, st.lists(st.integers(1, 5000), min_size=1, max_size=4))
@example([("noise", 700), ("zeros", 500), ("noise", 700)], [1200, 1])
@example([("noise", 900)], [100])
def test_what_was_not_cut_may_be_fed_again_with_what_follows(
    parts: list[Segment], sizes: list[int]
) -> None:
    data = render(parts)
    for parameters in (TINY_CHUNKS, WHOLE_CHUNKS):
        cutter = Cutter(parameters)
        cuts: list[Cut] = []
        at = turn = 0
        while at < len(data):
            again = cutter.give_back()
            size = sizes[turn % len(sizes)]
            turn += 1
            cuts += cutter.feed(data[at - again : at + size])
            at += size
            zeros = len(data[at:]) - len(data[at:].lstrip(b"\0"))
            if turn % 2 and zeros > 1:
                cuts += cutter.feed_zeros(zeros - 1)
                at += zeros - 1
        cuts += cutter.finish()
        found = [(c.offset, c.length, None if c.data is None else bytes(c.data)) for c in cuts]
        assert found == cuts_of(data, (), parameters)


@given(segments)
@example([("noise", 999)])
@example([("noise", 1000)])
@example([("zeros", 999)])
@example([("noise", 300), ("zeros", 699)])
@example([("noise", 300), ("zeros", MAX)])
def test_a_short_file_is_one_chunk_and_no_other_is_cut_elsewhere(parts: list[Segment]) -> None:
    data = render(parts)
    if 0 < len(data) < WHOLE_CHUNKS.whole_bytes:
        assert cuts_of(data, (), WHOLE_CHUNKS) == [(0, len(data), data)]
    else:
        assert cuts_of(data, (), WHOLE_CHUNKS) == cuts_of(data, ())


@given(segments)
def test_holes_are_the_maximal_long_runs_of_zeros(parts: list[Segment]) -> None:
    data = render(parts)
    cuts = cuts_of(data, ())
    assert [(offset, n) for offset, n, piece in cuts if piece is None] == holes_of(data)


@given(segments, st.integers(1, 3000))
@example([("noise", 10), ("zeros", MAX - 1), ("zeros", 1), ("noise", 10)], 100)
@example([("zeros", 5), ("zeros", 3 * MAX), ("zeros", 5)], 7)
def test_zeros_that_are_not_in_memory_are_cut_like_others(parts: list[Segment], size: int) -> None:
    for parameters in (TINY_CHUNKS, WHOLE_CHUNKS):
        check_zeros_not_in_memory(parameters, parts, size)


def check_zeros_not_in_memory(
    parameters: ChunkingParameters, parts: list[Segment], size: int
) -> None:
    cutter = Cutter(parameters)
    cuts: list[Cut] = []
    state: list[Segment] = []
    whole = render(parts)
    at = 0
    for kind, length in parts:
        state.append((kind, length))
        if kind == "zeros":
            cuts += cutter.feed_zeros(length)
        else:
            for start in range(at, at + length, size):
                cuts += cutter.feed(whole[start : min(start + size, at + length)])
        at += length
    cuts += cutter.finish()
    seen = [(c.offset, c.length, None if c.data is None else bytes(c.data)) for c in cuts]
    assert seen == cuts_of(whole, (), parameters)


@given(segments)
def test_data_between_holes_is_cut_as_if_it_were_a_file(parts: list[Segment]) -> None:
    data = render(parts)
    edges = [0, *(x for at, n in holes_of(data) for x in (at, at + n)), len(data)]
    expected: list[tuple[int, int, bytes | None]] = []
    for number, (start, end) in enumerate(pairwise(edges)):
        if number % 2:
            expected.append((start, end - start, None))
        else:
            expected += [(start + o, n, piece) for o, n, piece in cuts_of(data[start:end], ())]
    assert cuts_of(data, ()) == expected


def test_inserting_bytes_moves_few_cuts() -> None:
    data = render([("noise", 200_000)])
    changed = data[:100_000] + b"inserted" + data[100_000:]
    before = {piece for _, _, piece in cuts_of(data, ())}
    after = {piece for _, _, piece in cuts_of(changed, ())}
    assert len(before) > 300
    assert len(after - before) <= 4


@given(segments, st.integers(1, 600))
def test_cuts_come_as_soon_as_no_later_byte_can_change_them(
    parts: list[Segment], size: int
) -> None:
    """What makes edits cheap: a cut needs no more than what follows it to be certain."""
    data = render(parts)
    cutter = Cutter(TINY_CHUNKS)
    given_up = 0
    for start in range(0, len(data), size):
        for cut in cutter.feed(data[start : start + size]):
            given_up = cut.offset + cut.length
        seen = data[: start + size].rstrip(b"\0")
        assert len(seen) - given_up < MAX + LOOK_AHEAD_BYTES


@given(segments, st.integers(0))
def test_a_cutter_may_start_at_any_cut(parts: list[Segment], choice: int) -> None:
    data = render(parts)
    cuts = cuts_of(data, ())
    if cuts:
        start = cuts[choice % len(cuts)][0]
        rest = [(start + offset, n, piece) for offset, n, piece in cuts_of(data[start:], ())]
        assert rest == [cut for cut in cuts if cut[0] >= start]
