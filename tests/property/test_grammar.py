"""Names and revisions: what is formatted parses to the same, and junk is refused politely."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from versionfs.errors import InvalidInputError
from versionfs.repo import Spec, format_spec, parse_spec, split_component, validate_name
from versionfs.repo.revisions import end_of
from versionfs.repo.spec import parse_revision

name = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,12}\Z")
day = st.dates().map(str)
zone = st.sampled_from(["", "Z", "+01:00", "-0730"])
moment = st.builds(
    "{}T{}{}".format,
    day,
    st.sampled_from(["00:00", "23:59", "14:30:15", "00:00:00"]),
    zone,
)
digits = st.from_regex(r"\A[0-9a-f]{4,64}\Z")
back = st.lists(st.integers(0, 10**6).map("~{}".format) | st.just("~"), max_size=3).map("".join)
base = st.one_of(st.just("head"), name, day, moment, digits)
revision = st.one_of(
    st.builds(str.__add__, base, back),
    back.filter(bool),
)
component = st.binary(min_size=1, max_size=8).filter(
    lambda b: b not in (b".", b"..") and b"/" not in b and b"\0" not in b
)
path = st.lists(component, max_size=3).map(b"/".join)
specs = st.builds(
    Spec, repository=name, branch=st.none() | name, revision=st.none() | revision, path=path
)


@given(specs)
@example(Spec("a", "main", "2026-11-01T14:30", b"15/x"))
@example(Spec("a", "main", "2026-11-01T14:30", b"15"))
@example(Spec("a", None, "2026-11-01T14:30:15", b"+01:00/x"))
@example(Spec("a", None, None, b"x@y:z"))
@example(Spec("a", None, "~", b"~1"))
def test_a_formatted_spec_parses_to_itself(spec: Spec) -> None:
    assert parse_spec(format_spec(spec)) == spec


@given(st.text(max_size=40) | st.from_regex(r"[a/@:~.0-9TZ+-]{0,30}"))
@example("")
@example("@")
@example(":")
@example("a//b")
@example("a@")
@example("a@~" + "9" * 5000)
@example("a@2026-11-01T1:2")
@example("a:\udcff/../x")
@example("\ud800")
def test_junk_is_a_spec_or_invalid_input(text: str) -> None:
    try:
        spec = parse_spec(text)
    except InvalidInputError:
        return
    assert parse_spec(format_spec(spec)) == spec


@given(st.text(max_size=30) | revision | st.from_regex(r"[@~a-f0-9T:-]{0,20}"))
@example("~" + "1" * 5000)
@example("main@")
def test_junk_is_a_component_or_invalid_input(text: str) -> None:
    try:
        branch, revised = split_component(text)
    except InvalidInputError:
        return
    assert text == (branch or "") + ("" if revised is None else f"@{revised}")


@given(revision)
def test_steps_back_add_up(text: str) -> None:
    first = parse_revision(text)
    assert parse_revision(f"{text}~2~3").back == first.back + 5
    assert parse_revision(f"{text}~2~3").base == first.base


@given(moment | day)
@example("9999-12-31")
@example("0001-01-01")
@example("9999-12-31T23:59Z")
@example("0001-01-01T00:00+01:00")
@example("2026-02-30")
@example("2026-11-01T25:00")
def test_a_time_is_one_or_invalid_input(text: str) -> None:
    try:
        end = end_of(text)
    except InvalidInputError:
        return
    assert int(end.timestamp()) or True


@pytest.mark.parametrize(
    "text", ["", ".", "..", "-x", ".x", "a/b", "a@b", "a:b", "ä", "a\n", "a b"]
)
def test_what_is_no_name(text: str) -> None:
    for kind in ("repository", "branch", "tag"):
        with pytest.raises(InvalidInputError):
            validate_name(kind, text)


def test_names_have_a_greatest_length() -> None:
    assert validate_name("tag", "a" * 200)
    with pytest.raises(InvalidInputError, match="too long"):
        validate_name("tag", "a" * 201)
