"""What a node has, asked on the node itself; imports nothing heavy, since every node starts a process for it."""

from collections.abc import Sequence
from pathlib import Path


def has_folders(folders: Sequence[str]) -> bool:
    """Return whether all of these directories are on this machine."""
    return all(Path(folder).is_dir() for folder in folders)
