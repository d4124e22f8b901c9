"""What commands remember of files that have not changed: their digests, and what was found of them.

A cache of the user's, apart for each host.  It only saves time: an entry is found again by the content that it was made
of and by the code that made it, and whatever cannot be read or written is worked out anew.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from storage.digests import digest_of, digest_of_file

_SETTLED_S = 2.0
"""A file that was changed later than so long ago may be changed again within one tick of its clock, and look the same."""
_KEPT = 2000
"""Entries of one kind; the oldest go."""
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft")
"""Whose versions can change what is found of a model."""


def cache_folder() -> Path:
    """Return where the cache stands: below ``XDG_CACHE_HOME``, or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "palimpsest" / platform.node()


def remembered(kind: str, made_of: Any, make: Callable[[], Any]) -> Any:
    """Return what ``make`` gives for this content, from the cache if it was made before; JSON in either case.

    What it raises is not remembered.

    Args:
        made_of: All that determines the answer, as JSON; the code and the libraries are added to it.
    """
    key = digest_of({"made_of": made_of, "by": _code(), "with": _versions()}, length=32)
    return _kept(kind, key, make)


def digest_of_settled_file(path: Path) -> str:
    """Return the SHA-256 of a file's content; of one that has not been touched since the last time, without reading it.

    A file is the same if its path, device, inode, size and both of its clocks in nanoseconds are.  One that was touched
    within the last two seconds is read every time.
    """
    stat = path.stat()
    touched = max(stat.st_mtime, stat.st_ctime)
    if not touched < time.time() - _SETTLED_S:
        return digest_of_file(path)
    place = [str(path.absolute()), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return str(_kept("digests", digest_of(place, length=32), lambda: digest_of_file(path)))


def _kept(kind: str, key: str, make: Callable[[], Any]) -> Any:
    file = cache_folder() / kind / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(file.read_text(encoding="utf-8"))["found"]
    found = make()
    with suppress(OSError):
        _write(file, json.dumps({"found": found}))
    return found


def _write(file: Path, content: str) -> None:
    """Write a file as a whole, and drop the oldest of its kind if there are too many."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False, encoding="utf-8") as stream:
        stream.write(content)
    Path(stream.name).replace(file)
    entries = list(file.parent.iterdir())
    if len(entries) > _KEPT:
        for old in sorted(entries, key=lambda entry: entry.stat().st_mtime)[: len(entries) - _KEPT // 2]:
            old.unlink(missing_ok=True)


@cache
def _code() -> str:
    """Return a digest of the code whose answers are remembered."""
    root = Path(__file__).parents[1]
    files = [path for package in ("editing", "tasks", "flows") for path in sorted((root / package).rglob("*.py"))]
    return digest_of({path.relative_to(root).as_posix(): digest_of_file(path) for path in files})


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
