"""Where a store's files are, behind a few operations: whole files by name, and creation that only one writer wins.

Names are relative, with ``/``.  A directory may be on a local disk or on NFS; an S3-compatible bucket is in ``s3.py``.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from storage.errors import DamagedFileError, StorageError, StoreUnavailableError

MARKER = "store.json"
"""A directory without it is no store, or one that is not mounted now."""
Content = bytes | Path
"""What a file is to hold: bytes, or what a local file holds."""
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EROFS}
)
"""Errors of a disk or a mount that someone may mend meanwhile."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP})
"""What FAT and mounts of buckets say to a hard link."""


class Entry(NamedTuple):
    """What is known of a file without reading it."""

    size: int
    modified: float
    """Seconds, by the clock of the file system: to be compared with other files' only."""


class Files(Protocol):
    """The operations that a store needs.

    Each raises StoreUnavailableError where the place does not answer, is full or is gone, and FileNotFoundError where one
    file is not there.
    """

    @property
    def location(self) -> str:
        """A directory's absolute path, or an address."""
        ...

    @property
    def folder(self) -> Path:
        """The directory on this machine with the files, or with the copies of a bucket's that are kept."""
        ...

    def make(self) -> None:
        """Make the place itself, if it can be made.

        Raises:
            StorageError: It cannot be a store.
        """
        ...

    def read(self, name: str) -> bytes: ...

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of many small files by name, without those that are not there."""
        ...

    def write(self, name: str, content: Content) -> None:
        """Make a file appear whole, in the place of an earlier one."""
        ...

    def create(self, name: str, content: Content) -> bool:
        """Make a file appear whole if there is none of this name; return whether it was this call."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if it is not there."""
        ...

    def listing(self, folder: str) -> dict[str, Entry]:
        """Return all files below a folder by name."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def local(self, name: str) -> Path:
        """Return a path under which the content of a file that never changes can be read on this machine."""
        ...

    def fetch(self, names: Iterable[str]) -> list[Path]:
        """Return the same of many files."""
        ...


def check_exclusive(files: Files) -> None:
    """Try that only one of two writers can create a file there, as commits need it.

    Raises:
        StorageError: Both can.
    """
    name = f"_tmp/{uuid.uuid4().hex}"
    try:
        once = files.create(name, b"first") and not files.create(name, b"second")
    finally:
        files.delete(name)
    if not once:
        raise StorageError(
            f"{files.location}: its server lets two writers create one object; expected one that heeds If-None-Match on PUT, "
            "without which a unit could be committed twice: update it, or use another"
        )


class LocalFiles:
    """Files in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def location(self) -> str:
        return str(self._root)

    @property
    def folder(self) -> Path:
        return self._root

    def make(self) -> None:
        try:
            with self._reached():
                self._root.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StorageError(
                f"{self._root} is no directory; expected one, or a place where it can be made"
            ) from error
        except (FileNotFoundError, PermissionError) as error:
            raise StorageError(
                f"the directory {self._root} cannot be made: {error.strerror}; expected one that can be written, or an s3:// "
                "address: mount its disk, or give another place"
            ) from error

    def read(self, name: str) -> bytes:
        with self._reached():
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                if name != MARKER:
                    self._check_there()
                raise
            except IsADirectoryError as error:
                raise DamagedFileError(
                    f"{self._root / name} is a directory; expected a file written by palimpsest; restore it from a backup"
                ) from error

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    def write(self, name: str, content: Content) -> None:
        with self._reached(), self._written(name, content) as temporary:
            final = self._room(name)
            temporary.replace(final)
            _sync_directory(final.parent)

    def create(self, name: str, content: Content) -> bool:
        with self._reached(), self._written(name, content) as temporary:
            final = self._room(name)
            try:
                os.link(temporary, final)
            except FileExistsError:
                # NFS asks again for a link whose answer was lost: the file that is there may be this one.
                return self.read(name) == temporary.read_bytes()
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StorageError(
                    f"the store {self._root} lies on a file system without hard links ({error.strerror}), which make a commit "
                    "exclusive; expected a local disk, NFS or Lustre, or an s3:// address"
                ) from error
            _sync_directory(final.parent)
            return True

    def size(self, name: str) -> int | None:
        with self._reached():
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                self._check_there()
                return None

    def listing(self, folder: str) -> dict[str, Entry]:
        with self._reached():
            self._check_there()
            return dict(_entries(self._root / folder, f"{folder}/" if folder else ""))

    def delete(self, name: str) -> None:
        with self._reached():
            self._check_there()
            (self._root / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        return self._root / name

    def fetch(self, names: Iterable[str]) -> list[Path]:
        return [self._root / name for name in names]

    def _check_there(self) -> None:
        # A directory that is not mounted must not look like a store without runs.
        if not (self._root / MARKER).exists():
            raise StoreUnavailableError(
                f"the store {self._root} is gone: {MARKER} is missing; mount it, or check the path"
            )

    def _room(self, name: str) -> Path:
        # Level by level: the root itself is never made here, for it may be unmounted at any instant.
        *folders, last = name.split("/")
        place = self._root
        for folder in folders:
            place = place / folder
            place.mkdir(exist_ok=True)
        return place / last

    @contextmanager
    def _written(self, name: str, content: Content) -> Iterator[Path]:
        """Inside, a temporary file on the same file system holds the content, and is on the disk."""
        temporary = self._root / "_tmp" / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if name != MARKER:
                self._check_there()  # an empty mount point takes files, too
            yield temporary
        except (FileNotFoundError, PermissionError):
            if name != MARKER:
                self._check_there()
            raise
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, NotADirectoryError) or (isinstance(error, FileExistsError) and self._root.is_file()):
                raise StorageError(
                    f"the store {self._root} cannot be a directory: {_file_on(self._root)} is a file; expected a directory, "
                    "one that can be made, or an s3:// address; give another place"
                ) from error
            if error.errno not in _PASSING:
                raise
            raise StoreUnavailableError(
                f"the store {self._root} cannot be used now: {error.strerror}; expected a writable directory with free space; "
                "what is committed is whole: mend it, and run the same command again"
            ) from error


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Make a directory and see to it that it takes so many bytes, before they are needed.

    Raises:
        StorageError: It cannot be made or written.
        StoreUnavailableError: Its disk is full, or its user may keep no more there.
    """
    files = LocalFiles(folder)
    files.make()
    tried = folder / f".room-{uuid.uuid4().hex}"
    try:
        with files._reached(), tried.open("wb") as stream:
            stream.write(bytes(n_bytes))
            stream.flush()
            os.fsync(stream.fileno())
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{folder} takes no {n_bytes >> 20} MiB, which {what} need: {error.__cause__}; free space on its disk, or give a "
            "place on another"
        ) from error
    finally:
        tried.unlink(missing_ok=True)


def _file_on(path: Path) -> Path:
    """Return what stands on the way to a directory and is none."""
    return next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), path)


def _entries(folder: Path | str, prefix: str) -> Iterator[tuple[str, Entry]]:
    try:
        with os.scandir(folder) as found:
            for each in found:
                if each.is_dir():
                    yield from _entries(each.path, f"{prefix}{each.name}/")
                    continue
                with suppress(FileNotFoundError):  # deleted since
                    known = each.stat()
                    yield f"{prefix}{each.name}", Entry(known.st_size, known.st_mtime)
    except FileNotFoundError:
        return


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
