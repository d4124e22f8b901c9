"""What a node has, asked on the node itself; imports nothing heavy, since every node starts a process for it."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

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


def describe(store: str) -> dict[str, str]:
    """Return what must be alike on all nodes."""
    in_bucket = "://" in store
    packages = ("palimpsest", "torch", "transformers", "ray", *(["boto3"] if in_bucket else []))
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "store": "in a bucket" if in_bucket else "seen" if Path(store).is_dir() else "not seen",
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
