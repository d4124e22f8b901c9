"""What a node has, asked on the node itself; imports nothing heavy, since every node starts a process for it."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def has_folders(folders: Sequence[str]) -> bool:
    """Return whether all of these directories are on this machine."""
    return all(Path(folder).is_dir() for folder in folders)


def describe(store: str, folders: Sequence[str]) -> dict[str, Any]:
    """Return what must be alike on all nodes, and whether they have these directories."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("palimpsest", "torch", "transformers", "ray")},
        "store": "in a bucket" if "://" in store else "seen" if Path(store).is_dir() else "not seen",
        "folders": has_folders(folders),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
