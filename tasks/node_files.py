"""What a node has, asked on the node itself; imports nothing heavy, since every node starts a process for it."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.identity import ModelRef
from tasks.models import verified_folder


def fetch_models(models: Sequence[ModelRef]) -> str:
    """Have all models on this machine, from the hub where need be; return why that cannot be, or an empty text."""
    try:
        for model in models:
            verified_folder(model)
    except (InputError, OSError) as error:
        return str(error)
    return ""


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
