"""Descriptions of source files of kept results."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import NonNegativeInt

from scanseg.specs.base import Document


class SourceFile(Document):
    """State of a file when a result was made from it."""

    name: str
    """Name without its folder."""
    num_bytes: NonNegativeInt
    """Size in bytes."""
    modified_nanoseconds: int
    """Date of the last change in nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file.

        Args:
            path: The file.

        Raises:
            OSError: The file is missing.
        """
        status = path.stat()
        return cls(name=path.name, num_bytes=status.st_size, modified_nanoseconds=status.st_mtime_ns)


class FileStamp(Document):
    """State of a large file with its checksum.

    A copy with another date is recognized by it.
    """

    num_bytes: NonNegativeInt
    """Size in bytes."""
    modified_nanoseconds: int
    """Date of the last change in nanoseconds since 1970."""
    sha256: str
    """SHA-256 checksum in hexadecimal."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file.

        Args:
            path: The file.

        Raises:
            OSError: The file is missing.
        """
        status = path.stat()
        return cls(num_bytes=status.st_size, modified_nanoseconds=status.st_mtime_ns, sha256=_checksum(path))

    def matches(self, path: Path) -> bool:
        """Return whether a file has the same content.

        The checksum is computed only if the date differs.

        Args:
            path: The file.
        """
        try:
            status = path.stat()
        except OSError:
            return False
        if status.st_size != self.num_bytes:
            return False
        return status.st_mtime_ns == self.modified_nanoseconds or _checksum(path) == self.sha256


class ScoreSources(Document):
    """Sources of validation scores and label maps."""

    weights: FileStamp
    """The scored weights."""
    cases: dict[str, str]
    """Digest of each preprocessed case (`Store.case_digest`), by its name."""


class PairSources(Document):
    """Sources of the label map of a pair of models."""

    weights: tuple[FileStamp, ...]
    """The files of the weights of the models."""
    cases: tuple[str, ...]
    """Digest of the preprocessed case (`Store.case_digest`) of each model."""


def _checksum(path: Path) -> str:
    """Return the SHA-256 checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
