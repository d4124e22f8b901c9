"""The processes of this machine that a run has started."""

import contextlib
import os

import psutil


def descendants_of(pid: int) -> set[psutil.Process]:
    """Return the living descendants of a process, except this one."""
    with contextlib.suppress(psutil.Error):
        return {child for child in psutil.Process(pid).children(recursive=True) if child.pid != os.getpid()}
    return set()
