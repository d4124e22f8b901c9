"""No process outlives its run: a small watcher ends what a driver started if the driver dies without a word.

A driver killed by ``kill -9`` leaves Prefect's temporary server behind, and parts of an embedded Ray cluster.  The watcher
holds the reading end of a pipe whose writing end dies with the driver.  While the driver lives it notes the driver's
descendants; afterwards it ends those, and those that inherited the driver's mark, and nothing else.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
import uuid

import psutil

from tasks.workers.processes import descendants_of

MARK = "PALIMPSEST_DRIVER"
_INTERVAL_S = 0.5


def watch_descendants() -> None:
    """Start a watcher that ends what this process has started once this process is gone, however it goes.

    The pipe is never closed by hand: Prefect still sends its last log lines, and stops its own server, while the interpreter
    shuts down; a server that is ended before that keeps the driver waiting for minutes.
    """
    mark = uuid.uuid4().hex
    reading, _ = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "tasks.driver.reaper", str(os.getpid()), mark],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reading)
    # Only now, so that the watcher does not carry the mark itself.
    os.environ[MARK] = mark


def marked(mark: str) -> set[psutil.Process]:
    """Return the living processes whose environment carries ``mark``, the driver's own children among them.

    Ray's workers write their titles over their environment, which is why the descendants are noted as well.
    """
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.add(process)
    return found


def reap(noted: set[psutil.Process], mark: str, *, grace_s: float = 2.0) -> None:
    """End processes: politely, then for good; looks again until none is left."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # A noted process counts only while its start time is the noted one: is_running() compares both.
        alive = {p for p in noted if p.is_running() and not _is_zombie(p)} | marked(mark)
        if not alive:
            return
        for process in alive:
            noted |= descendants_of(process.pid)
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, stubborn = psutil.wait_procs(alive, timeout=grace_s)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def main() -> None:
    """Note the driver's descendants until it is gone; then end what is left of them."""
    driver, mark = int(sys.argv[1]), sys.argv[2]
    noted: set[psutil.Process] = set()
    while True:
        noted |= descendants_of(driver)
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], _INTERVAL_S)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            break
    reap(noted, mark)


if __name__ == "__main__":
    main()
