"""Where folders of models that are made here stand, and how they are left."""

import os
from pathlib import Path


def models_folder() -> Path:
    """Return where models stand that were fetched or made: below ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palimpsest" / "models"


def with_ordinary_permissions(folder: Path) -> None:
    """Give every file what the user's umask allows: safetensors makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
