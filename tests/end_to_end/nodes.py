"""A Ray cluster of several nodes on one machine: separate processes, each with a GPU that is not there."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.end_to_end.support import environment, wait_until

LOOPBACK = "127.0.0.1"
_RAY = Path(sys.executable).parent / "ray"
_COUNT = """
import ray
ray.init(address="{address}", logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""


class Nodes:
    """The nodes' processes; the first is the head."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        self.address = f"{LOOPBACK}:{free_port()}"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *, head: bool = False) -> None:
        """Start a node and wait until it has joined."""
        own = (
            [
                "--head",
                f"--port={self.address.partition(':')[2]}",
                f"--temp-dir={self._folder}/ray",
                "--include-dashboard=false",
            ]
            if head
            else [f"--address={self.address}"]
        )
        common = [
            f"--node-ip-address={LOOPBACK}",
            "--num-cpus=1",
            "--num-gpus=1",
            f"--object-store-memory={80 * 2**20}",
            "--block",
        ]
        with (self._folder / f"node-{len(self._running)}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    [str(_RAY), "start", *own, *common],
                    stdout=log,
                    stderr=log,
                    env=environment() | self.variables,
                    start_new_session=True,
                )
            )
        process = psutil.Process(self._running[-1].pid)
        assert wait_until(lambda: any(p.name() == "raylet" for p in children(process)), seconds=60), self.logs()

    def alive(self) -> int:
        """Return how many nodes the cluster counts."""
        done = subprocess.run(
            [sys.executable, "-c", _COUNT.format(address=self.address)],
            capture_output=True,
            text=True,
            check=False,
            env=environment() | self.variables,
        )
        return int(done.stdout.split()[-1]) if done.returncode == 0 else 0

    def raylets(self) -> list[psutil.Process]:
        """Return the raylets of the nodes that are no head; to kill one is to lose its node."""
        return [
            each
            for running in self._running[1:]
            if running.poll() is None
            for each in children(psutil.Process(running.pid))
            if each.name() == "raylet"
        ]

    def head(self) -> psutil.Process:
        """Return the process that holds the cluster together; without it all ends."""
        (found,) = (p for p in children(psutil.Process(self._running[0].pid)) if p.name() == "gcs_server")
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the workers of runs."""
        found = [
            each
            for running in self._running
            if running.poll() is None
            for each in children(psutil.Process(running.pid))
        ]
        return [each for each in found if title(each).startswith("ray::Worker")]

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._folder.glob("node-*.log")))

    def end(self) -> None:
        """End all that was started here, and nothing else."""
        family = [
            p for running in self._running if running.poll() is None for p in children(psutil.Process(running.pid))
        ]
        for running in self._running:
            running.kill()
            running.wait()
        for process in family:
            try:
                process.kill()
            except psutil.Error:
                continue


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


@contextmanager
def cluster_of(count: int) -> Iterator[Nodes]:
    """Yield a running cluster with so many nodes; on leaving nothing of it is left."""
    # The paths of Ray's sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="pal-", dir=os.environ.get("TMPDIR", "/tmp")))
    nodes = Nodes(folder)
    try:
        for number in range(count):
            nodes.start(head=number == 0)
        for _ in range(2):
            if wait_until(lambda: nodes.alive() >= count, seconds=45):
                break
            nodes.start()  # now and then a node that starts beside others does not join
        assert wait_until(lambda: nodes.alive() >= count, seconds=45), nodes.logs()
        yield nodes
    finally:
        nodes.end()
        shutil.rmtree(folder, ignore_errors=True)
