"""Where stores are: a directory or a bucket by its address, and whether there is one."""

from pathlib import Path

from storage.errors import StorageError
from storage.files import MARKER, Files, LocalFiles
from storage.s3 import SCHEME, S3Files


def open_files(root: str | Path) -> Files:
    """Return the files of a directory, or of a bucket (``s3://BUCKET/PREFIX``)."""
    if str(root).startswith(SCHEME):
        return S3Files(str(root))
    return LocalFiles(Path(root))


def is_store(root: str | Path) -> bool:
    """Return whether there is a store, of whatever version.

    Raises:
        StorageError: The place does not answer, or refuses.
    """
    try:
        open_files(root).read(MARKER)
    except FileNotFoundError:
        return False
    return True


def answers(root: str | Path) -> bool:
    """Return whether a store can be read now, without waiting."""
    try:
        return is_store(root)
    except StorageError:
        return False
