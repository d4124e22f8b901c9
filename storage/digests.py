"""Identity by content: canonical JSON and its digest."""

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; equal values give equal text.

    Raises:
        TypeError: The value holds something that JSON cannot.
        ValueError: It holds NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any, *, length: int = 16) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def digest_of_bytes(*parts: bytes) -> str:
    """Return the SHA-256 of byte strings, each preceded by its length, so that their borders count."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def digest_of_content(content: bytes) -> str:
    """Return the SHA-256 of a file's content, given as bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
