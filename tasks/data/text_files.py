"""Local text files, packed or not."""

import gzip
from pathlib import Path

from tasks.errors import InputError


def open_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        InputError: It is missing, or not UTF-8.
    """
    if not path.exists():
        raise InputError(
            f"file {path} does not exist; expected a local file; check the path (relative to the YAML file)"
        )
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            return stream.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"file {path} cannot be read ({error}); expected UTF-8 text, or the same gzipped") from error
