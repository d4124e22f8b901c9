"""What a node has, asked on the node itself; imports nothing heavy, since every node starts a process for it."""

import platform
from collections.abc import Sequence
from importlib import metadata

from storage.errors import StorageError
from tasks.data.model_files import verified_folder
from tasks.errors import InputError
from tasks.specs.run import ModelRef


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
    packages = ("palimpsest-editing", "torch", "transformers", "ray", *(["boto3"] if "://" in store else []))
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "store": _seen(store),
    }


def _seen(store: str) -> str:
    from storage.locations import is_store

    try:
        return "seen" if is_store(store) else "not seen"
    except StorageError as error:
        return f"not seen: {error}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
