"""The one grammar of names: ``REPO[/BRANCH][@REV][:PATH]``.

REPO, BRANCH and tags match ``[A-Za-z0-9_][A-Za-z0-9._-]*``. REV is one of ``head``, a tag, a date
``2026-11-01``, a time ``2026-11-01T14:30[:15][Z|+01:00]``, or a commit id of 4 to 64 hex digits,
each with any number of ``~N`` behind; or ``~N`` alone, counted from the head.

A colon inside a time belongs to the time: ``photos@2026-11-01T14:30:readme`` has the path
``readme``, and a path that begins with two digits needs a slash, ``:/15/x``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from versionfs.errors import InvalidInputError

DEFAULT_BRANCH: Final = "main"
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
MAX_NAME_BYTES: Final = 200
TIME: Final = r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:?\d\d)?)?"
"""What looks like a time; whether there is such a day is another question."""
_REVISION: Final = re.compile(
    rf"(?P<base>{TIME}(?![A-Za-z0-9._-])|[A-Za-z0-9_][A-Za-z0-9._-]*)?(?P<back>(?:~\d*)*)", re.ASCII
)
_BACK: Final = re.compile(r"~(\d*)", re.ASCII)
_MANY: Final = 10**18
"""As many steps back as any other number that no history has."""
_RULE: Final = (
    "use letters, digits, '.', '_' and '-', not beginning with '.' or '-'; no '/', no '@'"
)


class Spec(NamedTuple):
    """A parsed name. ``branch`` and ``revision`` are None where the text has none.

    ``path`` has no slash at either end; ``b""`` is the root.
    """

    repository: str
    branch: str | None = None
    revision: str | None = None
    path: bytes = b""

    def __str__(self) -> str:
        return format_spec(self)


class Revision(NamedTuple):
    """A parsed REV: ``base`` (None: the head), then ``back`` first parents."""

    base: str | None
    back: int


def validate_name(kind: str, name: str) -> str:
    """Returns the name if it may be one of a repository, branch or tag (``kind``, for messages).

    Raises:
        InvalidInputError: it may not.
    """
    if NAME.fullmatch(name) is None:
        raise InvalidInputError(f"{name!r} is not a {kind} name", hint=_RULE)
    if len(name) > MAX_NAME_BYTES:
        raise InvalidInputError(
            f"the {kind} name {name[:20]}… is too long", hint=f"at most {MAX_NAME_BYTES} characters"
        )
    return name


def parse_revision(text: str) -> Revision:
    """Parses a REV, without the ``@``.

    Raises:
        InvalidInputError: it is none.
    """
    match = _REVISION.fullmatch(text)
    if match is None or not text:
        raise InvalidInputError(
            f"{text!r} is not a revision",
            hint="use head, ~N, a tag, a date like 2026-11-01, or a commit id",
        )
    steps = [
        _MANY if len(digits) > 18 else int(digits or 1) for digits in _BACK.findall(match["back"])
    ]
    base = match["base"]
    return Revision(None if base in (None, "head") else base, min(sum(steps), _MANY))


def split_component(component: str) -> tuple[str | None, str | None]:
    """Splits one path component of a repository folder into branch and revision.

    ``main`` → (main, None), ``main@~3`` → (main, ~3), ``@v1.0`` → (None, v1.0).

    Raises:
        InvalidInputError: it is neither a branch nor a revision.
    """
    branch, at, revision = component.partition("@")
    if at:
        parse_revision(revision)
    if branch:
        validate_name("branch", branch)
    elif not at:
        raise InvalidInputError("an empty name is neither a branch nor a revision")
    return branch or None, revision if at else None


def parse_spec(text: str) -> Spec:
    """Parses ``REPO[/BRANCH][@REV][:PATH]``.

    Raises:
        InvalidInputError: the text does not follow the grammar.
    """
    if not text:
        raise InvalidInputError("an empty SPEC", hint="write REPO[/BRANCH][@REV][:PATH]")
    head, revision, path = text, None, ""
    at = text.find("@")
    colon = text.find(":")
    if at >= 0 and (colon < 0 or at < colon):
        head, rest = text[:at], text[at + 1 :]
        match = _REVISION.match(rest)
        end = match.end() if match is not None else 0
        if end == 0 or (end < len(rest) and rest[end] != ":"):
            end = rest.find(":") if ":" in rest else len(rest)
        revision, path = rest[:end], rest[end + 1 :]
        parse_revision(revision)
    elif colon >= 0:
        head, path = text[:colon], text[colon + 1 :]
    repository, slash, branch = head.partition("/")
    if slash and not branch and revision is None:
        slash = ""
    try:
        validate_name("repository", repository)
        if slash and (branch or revision is None):
            validate_name("branch", branch)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{text!r} is not a SPEC: {error.message}", hint="write REPO[/BRANCH][@REV][:PATH]"
        ) from error
    return Spec(repository, branch or None, revision, normalise_path(path))


def normalise_path(text: str) -> bytes:
    """Returns a PATH as bytes, without slashes at its ends and without ``.`` components.

    Raises:
        InvalidInputError: a component is ``..``, or the path has a NUL byte.
    """
    parts = [part for part in text.encode("utf-8", "surrogateescape").split(b"/") if part]
    parts = [part for part in parts if part != b"."]
    if b".." in parts or any(b"\0" in part for part in parts):
        raise InvalidInputError(f"{text!r} is not a path in a repository", hint="leave out '..'")
    return b"/".join(parts)


def format_spec(spec: Spec) -> str:
    """Returns the text that parses to the SPEC."""
    text = spec.repository
    if spec.branch is not None:
        text += f"/{spec.branch}"
    if spec.revision is not None:
        text += f"@{spec.revision}"
    if spec.path:
        path = spec.path.decode("utf-8", "surrogateescape")
        # Two digits behind a time would read as its seconds.
        text += f":/{path}" if spec.revision and "T" in spec.revision else f":{path}"
    return text
