"""A run whose driver, worker or Ray node is killed at a random instant ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.support import CHAINS, contents, descendants, palimpsest, start, wait_until

pytestmark = pytest.mark.xdist_group("cluster")  # the same finished run is its measure
NAMES = {"worker": "ray::Worker", "node": "raylet"}


@pytest.fixture(scope="module")
def unkilled(chains_store: Path) -> dict[str, list[str]]:
    return contents(chains_store)


def segments_done(store: Path) -> int:
    return len(list((store / "commits").glob("run_id=*/segment-*.json")))


def victim(run: subprocess.Popen[bytes], role: str) -> psutil.Process | None:
    if role == "driver":
        return psutil.Process(run.pid)
    for process in descendants(run):
        try:
            if NAMES[role] in " ".join(process.cmdline()) or NAMES[role] in process.name():
                return process
        except psutil.Error:
            continue
    return None


@pytest.mark.slow
def test_killed_run_ends_with_the_same_rows_ledger_and_weights(
    unkilled: dict[str, list[str]], server: dict[str, str], tmp_path: Path
) -> None:
    """First a worker dies, then the Ray node under the same driver, then the driver of the resumed run.

    And nothing of it listens beyond this machine.
    """
    store, log = tmp_path / "store", tmp_path / "log"
    seed = os.environ.get("PALIMPSEST_KILL_SEED") or str(os.getpid())
    rng = random.Random(seed)
    run = start("run", str(CHAINS), "--set", f"store={store}", log=log)
    with ended(run) as family:
        assert wait_until(lambda: victim(run, "worker") is not None or run.poll() is not None, seconds=240)
        listening = {address for process in descendants(run) for address in listens_on(process)}
        assert listening and all(ip_address(address).is_loopback for address in listening), listening
        kill(run, "worker", store, family, after_segments=rng.randint(1, 2), delay=rng.uniform(0, 0.3), log=log)
        # The driver replaces the worker and goes on.
        kill(run, "node", store, family, after_segments=rng.randint(3, 6), delay=rng.uniform(0, 0.3), log=log)
        assert_nothing_left(run, family, seed)
    assert "the last Ray node of this run is gone" in log.read_text(), log.read_text()[-3000:]
    run = start("run", str(CHAINS), "--set", f"store={store}", log=log, **server)
    with ended(run) as family:
        kill(run, "driver", store, family, after_segments=rng.randint(7, 10), delay=rng.uniform(0, 0.3), log=log)
        assert_nothing_left(run, family, seed)
    palimpsest("run", str(CHAINS), "--set", f"store={store}", **server)
    found = contents(store)
    for table, rows in unkilled.items():
        assert found[table] == rows, f"table {table} differs after the kills of seed {seed}"


def listens_on(process: psutil.Process) -> set[str]:
    """Return the addresses at which others can reach a process."""
    try:
        found = [each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return set()
    return {address.removeprefix("::ffff:") for address in found}


def kill(
    run: subprocess.Popen[bytes],
    role: str,
    store: Path,
    family: set[psutil.Process],
    *,
    after_segments: int,
    delay: float,
    log: Path,
) -> None:
    """Kill one process of the run as soon as so many segments are committed, and a little later."""

    def time_to_kill() -> bool:
        family.update(descendants(run))
        return run.poll() is not None or segments_done(store) >= after_segments

    assert wait_until(time_to_kill, seconds=240), log.read_text()[-3000:]
    assert run.poll() is None, f"the run ended before {role} could be killed: {log.read_text()[-3000:]}"
    time.sleep(delay)
    family.update(descendants(run))
    target = victim(run, role)
    assert target is not None, f"no process of role {role}"
    target.send_signal(signal.SIGKILL)


def assert_nothing_left(run: subprocess.Popen[bytes], family: set[psutil.Process], seed: str) -> None:
    wait_until(lambda: run.poll() is not None and not any(alive(p) for p in family), seconds=120)
    assert run.poll() is not None, f"the driver still runs two minutes after the kill of seed {seed}"
    assert [p for p in family if alive(p)] == [], f"two minutes after the kill of seed {seed}, these are still there"


@contextmanager
def ended(run: subprocess.Popen[bytes]) -> Iterator[set[psutil.Process]]:
    """Yield the set in which the run's processes are noted; on leaving none of them is alive."""
    family: set[psutil.Process] = set()
    try:
        yield family
    finally:
        if run.poll() is None:
            run.kill()
        for process in family:
            if alive(process):
                process.kill()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
