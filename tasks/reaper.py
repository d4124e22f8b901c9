"""No process outlives its run: a small watcher ends what a driver started if the driver dies without a word.

A driver killed by ``kill -9`` leaves Prefect's temporary server behind, and may leave parts of an embedded Ray cluster.
Every process that a run starts inherits one environment variable; the watcher, which holds the reading end of a pipe
whose writing end dies with the driver, ends exactly those processes.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil

MARK = "PALIMPSEST_DRIVER"


@contextlib.contextmanager
def watched() -> Iterator[str]:
    """Inside, a watcher looks after this process's descendants; yields their mark."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.reaper", mark],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != MARK},
    ):
        os.close(reading)
        try:
            yield mark
        finally:
            del os.environ[MARK]
            os.close(writing)


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes whose environment carries ``mark``, this one excluded."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def reap(mark: str, *, grace_s: float = 3.0) -> None:
    """End the marked processes: politely, then for good; looks again until none is left."""
    deadline = time.monotonic() + 20
    while (alive := marked(mark)) and time.monotonic() < deadline:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, stubborn = psutil.wait_procs(alive, timeout=grace_s)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()


def main() -> None:
    """Wait until the driver is gone, then end what it left."""
    mark = sys.argv[1]
    while os.read(sys.stdin.fileno(), 4096):
        pass
    time.sleep(1.0)  # a driver that ended in order is still closing its children
    reap(mark)


if __name__ == "__main__":
    main()
