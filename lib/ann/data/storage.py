"""Files on local or remote storage through pyarrow: a path, or a URI (file://, s3://, gs://, hdfs://).

pyarrow is an optional package; it is imported here only when a place on storage is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ann.errors import DatasetError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Folder:
    """A directory on storage, by path or URI. Small and picklable: it is opened anew in each process."""

    location: str

    @classmethod
    def of(cls, location: str | Path) -> Folder:
        """The directory at a path, which is made absolute, or at a URI."""
        text = str(location)
        return cls(text.rstrip("/") if is_uri(text) else os.path.abspath(text))

    def __str__(self) -> str:
        return self.location

    def file(self, name: str) -> str:
        """How a file of the directory is called in messages."""
        return f"{self.location}/{name}"

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in the directory, by name; an empty dict where there is no such directory."""
        from pyarrow.fs import FileSelector

        system, path = _open(self.location)
        with storage_errors(self.location, "read"):
            found = system.get_file_info(FileSelector(path, allow_not_found=True))
        return {info.base_name: info.size for info in found if info.is_file}

    def create(self) -> None:
        """Make the directory and those above it; where it is there already nothing happens."""
        system, path = _open(self.location)
        with storage_errors(self.location, "written"):
            system.create_dir(path, recursive=True)

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError where there is none."""
        system, path = _open(self.location)
        with (
            storage_errors(self.file(name), "read"),
            system.open_input_file(posixpath.join(path, name)) as file,
        ):
            return file.read()

    def open_input(self, name: str):
        """A file to read from at any place, as pyarrow's `NativeFile`."""
        system, path = _open(self.location)
        return system.open_input_file(posixpath.join(path, name))

    def open_output(self, name: str):
        """A new file to write to, as pyarrow's `NativeFile`; one of this name is replaced."""
        system, path = _open(self.location)
        return system.open_output_stream(posixpath.join(path, name))

    def delete(self, name: str) -> None:
        """Delete a file; where it is gone already nothing happens."""
        system, path = _open(self.location)
        with storage_errors(self.file(name), "deleted"), contextlib.suppress(FileNotFoundError):
            system.delete_file(posixpath.join(path, name))

    def replace(self, name: str, content: bytes) -> None:
        """Write a file so that it is never found half written: under another name first, then renamed."""
        system, path = _open(self.location)
        partial = posixpath.join(path, f".{name}.part")
        with storage_errors(self.file(name), "written"):
            with system.open_output_stream(partial) as file:
                file.write(content)
            system.move(partial, posixpath.join(path, name))


def is_uri(location: str | Path) -> bool:
    """Whether a location names its kind of storage, as s3://bucket/folder does."""
    return "://" in str(location)


@lru_cache(maxsize=64)
def _open(location: str) -> tuple[FileSystem, str]:
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, LocalFileSystem

    if not is_uri(location):
        return LocalFileSystem(), location
    try:
        return FileSystem.from_uri(location)
    except (ArrowInvalid, OSError, NotImplementedError) as error:
        raise DatasetError(
            f"Storage {location} can't be opened ({_reason(error)}). Give a directory, or a URI such as "
            "s3://bucket/folder, gs://bucket/folder, hdfs://host/folder or file:///folder, and see that the "
            "credentials for it are set where this runs."
        ) from error


@contextmanager
def storage_errors(what: str, done: str) -> Iterator[None]:
    """Turn errors of the storage into `DatasetError`, but for a file to be read that isn't there.

    done: "read", "written" or "deleted".
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and done == "read":
            raise
        advice = "Check the permissions, and that the storage can be reached."
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            advice = "The storage is full: free space on it, or choose another place."
        raise DatasetError(f"{what} can't be {done} ({_reason(error)}). {advice}") from error


def _reason(error: BaseException) -> str:
    """The first line of what a storage library says, without its source positions."""
    return str(error).split("\n")[0].split(". Detail:")[0].rstrip(".")
