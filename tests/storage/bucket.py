"""A server of buckets: a process of its own on loopback."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def bucket_server(folder: Path) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Yield the server's process, and the environment in which it is found."""
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"], stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + 60
        while "Running on http" not in (said := log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        yield (
            psutil.Process(process.pid),
            {
                "AWS_ENDPOINT_URL": said.partition("Running on ")[2].split()[0],
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                "PALIMPSEST_CACHE": str(folder / "cache"),
            },
        )
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
