"""A Prefect server of its own on loopback, for commands that need one that stays, or that should not each start one."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock

from storage.digests import digest_of
from tests.end_to_end.nodes import LOOPBACK, free_port
from tests.end_to_end.support import ROOT, environment, wait_until

PREFECT = Path(sys.executable).parent / "prefect"


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Inside, a process serves; on leaving it is gone."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)  # an idle worker of a pool takes half a minute
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Yield the variables that lead commands to a running server; on leaving it is gone."""
    process, variables = _started(home)
    with running(process):
        _wait_for(process, variables, home)
        yield variables


def shared_server(folder: Path) -> dict[str, str]:
    """Return the variables that lead to the server of all test processes; the first to ask starts it."""
    home, known = folder / "server", folder / "server.json"
    with FileLock(folder / "server.lock"):
        if not known.exists():
            process, variables = _started(home)
            _wait_for(process, variables, home)
            known.write_text(json.dumps({"pid": process.pid, "variables": variables}))
    found: dict[str, str] = json.loads(known.read_text())["variables"]
    return found


def end_shared_server(folder: Path) -> None:
    """End that server, if there is one."""
    known = folder / "server.json"
    if known.exists():
        with suppress(psutil.Error):
            process = psutil.Process(json.loads(known.read_text())["pid"])
            family = [process, *process.children(recursive=True)]
            for each in family:
                each.terminate()
            for each in psutil.wait_procs(family, timeout=10)[1]:
                each.kill()


def _started(home: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    home.mkdir(exist_ok=True)
    port = free_port()
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(PREFECT), "server", "start", "--host", LOOPBACK, "--port", str(port)],
            stdout=log,
            stderr=log,
            env=environment() | variables,
            start_new_session=True,
        )
    return process, variables


def _wait_for(process: subprocess.Popen[bytes], variables: dict[str, str], home: Path) -> None:
    ready = wait_until(lambda: process.poll() is not None or answers(variables["PREFECT_API_URL"]), seconds=300)
    assert ready and process.poll() is None, (home / "server.log").read_text()[-3000:]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ask(address: str, what: str, **wanted: object) -> list[dict[str, object]]:
    """Return what the server has on record: ``flow_runs``, ``artifacts``."""
    question = urllib.request.Request(
        f"{address}/{what}/filter", data=json.dumps(wanted).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(question, timeout=30) as reply:
        found: list[dict[str, object]] = json.load(reply)
    return found


def flow_runs(address: str, store: Path) -> list[dict[str, object]]:
    """Return the records of all runs on a store."""
    tag = f"store-{digest_of(str(store), length=10)}"
    return ask(address, "flow_runs", flow_runs={"tags": {"all_": [tag]}}, sort="START_TIME_ASC")


def prefect(*arguments: str, variables: dict[str, str], timeout: float = 900) -> str:
    """Run one of Prefect's own commands to its end and return what it printed."""
    done = subprocess.run(
        [str(PREFECT), "--no-prompt", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment() | variables,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"{arguments}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
