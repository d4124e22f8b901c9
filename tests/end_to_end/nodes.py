"""A Ray cluster of several nodes on one machine: separate processes, each with a GPU that is not there."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tasks.workers.loaded_models import FAKE_GPUS
from tests.end_to_end.support import descendants, environment, wait_until

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
        self.variables[FAKE_GPUS] = "1"
        self.address = f"{LOOPBACK}:{free_port()}"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *, head: bool = False) -> None:
        """Start a node and wait until it has joined; again if it ends by itself, as Ray's do after 30 s under load."""
        for _ in range(3):
            path = self._folder / f"node-{len(self._running)}.log"
            node = self._launch(path, head=head)
            family: set[psutil.Process] = set()

            def over(
                node: subprocess.Popen[bytes] = node, path: Path = path, family: set[psutil.Process] = family
            ) -> bool:
                family.update(descendants(node))
                return node.poll() is not None or "Ray runtime started" in path.read_text(errors="replace")

            if wait_until(over, seconds=120) and node.poll() is None:
                self._running.append(node)
                return
            kill_all([psutil.Process(node.pid), *family] if node.poll() is None else family)
            node.wait()
        raise AssertionError(self.logs())

    def _launch(self, path: Path, *, head: bool) -> subprocess.Popen[bytes]:
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
            "--num-cpus=2",
            "--num-gpus=1",
            f"--object-store-memory={80 * 2**20}",
            "--block",
        ]
        with path.open("wb") as log:
            return subprocess.Popen(
                [str(_RAY), "start", *own, *common],
                stdout=log,
                stderr=log,
                env=environment() | self.variables,
                start_new_session=True,
            )

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
        return [each for running in self._running[1:] for each in descendants(running) if named(each) == "raylet"]

    def head(self) -> psutil.Process:
        """Return the process that holds the cluster together; without it all ends."""
        (found,) = (each for each in descendants(self._running[0]) if named(each) == "gcs_server")
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the workers of runs."""
        found = [each for running in self._running for each in descendants(running)]
        return [each for each in found if title(each).startswith("ray::Worker")]

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._folder.glob("node-*.log")))

    def end(self) -> None:
        """End all that was started here, and nothing else."""
        family = [p for running in self._running for p in descendants(running)]
        for running in self._running:
            running.kill()
            running.wait()
        kill_all(family)


def kill_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def named(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


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
