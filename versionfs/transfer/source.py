"""What an import reads from."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from versionfs.errors import InvalidInputError


class Source:
    """An opened source: a folder, a file, or a tar as a stream."""

    def __init__(self, kind: str, name: str, path: bytes, stream: BinaryIO | None = None) -> None:
        self.kind = kind
        self.name = name
        self.path = path
        self.stream = stream

    @property
    def identity(self) -> bytes:
        """What is the same each time this source is imported."""
        return os.path.realpath(self.path)

    def close(self) -> None:
        """Closes the stream, unless it is the caller's."""
        if self.stream is not None and self.path:
            self.stream.close()

    @classmethod
    def open(cls, source: str | os.PathLike[str], stdin: BinaryIO | None) -> Source:
        """Opens what a path names, or ``-`` for a tar on ``stdin``.

        Raises:
            InvalidInputError: it is missing, cannot be read, or is of no use.
        """
        name = os.fspath(source)
        if name == "-":
            if stdin is None:
                raise InvalidInputError("there is no standard input to read a tar from")
            return cls("tar", "standard input", b"", stdin)
        path = os.fsencode(name)
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                os.scandir(path).close()
                return cls("folder", name, path)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInputError(
                    f"{name} is neither a folder nor a file",
                    hint="to import what a fifo or device delivers as a tar, write - and redirect",
                )
            stream = Path(name).open("rb")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise InvalidInputError(
                f"cannot read {name}: {error.strerror}", hint="check the path and the permissions"
            ) from error
        from versionfs.transfer.tarstream import is_tar  # tarfile takes long to import

        try:
            if is_tar(stream):
                stream.seek(0)
                return cls("tar", name, path, stream)
        except BaseException:
            stream.close()
            raise
        stream.close()
        return cls("file", name, path)
