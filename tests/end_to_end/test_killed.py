"""A run whose driver, worker or Ray node is killed at a random instant ends as if nothing had happened."""

import os
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from storage.store import Store
from tests.end_to_end.support import EXPERIMENT, contents, descendants, palimpsest, start, wait_until

NAMES = {"worker": "ray::Worker", "node": "raylet"}


@pytest.fixture(scope="module")
def unkilled(tiny_store: Path) -> dict[str, list[str]]:
    return contents(tiny_store)


def segments_done(store: Path) -> int:
    return len(list((store / "commits").glob("run_id=*/segment-*.parquet")))


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
@pytest.mark.parametrize("role", ["driver", "worker", "node"])
def test_killed_run_ends_with_the_same_rows_ledger_and_weights(
    role: str, unkilled: dict[str, list[str]], tmp_path: Path
) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    rng = random.Random(os.environ.get("PALIMPSEST_KILL_SEED") or f"{role}-{os.getpid()}")
    after_segments, delay = rng.randint(1, 6), rng.uniform(0, 0.3)
    run = start("run", str(EXPERIMENT), "--set", f"store={store}", log=log)
    family: set[psutil.Process] = set()

    def time_to_kill() -> bool:
        family.update(descendants(run))
        return run.poll() is not None or segments_done(store) >= after_segments

    try:
        assert wait_until(time_to_kill, seconds=240), log.read_text()[-3000:]
        wait_until(lambda: False, seconds=delay)
        family.update(descendants(run))
        target = victim(run, role)
        assert target is not None, f"no process of role {role} among {[p.info for p in family]}"
        target.send_signal(signal.SIGKILL)
        if role == "worker":
            run.wait(timeout=240)  # the driver replaces the worker and goes on
            assert run.returncode == 0, log.read_text()[-5000:]
        else:
            gone = wait_until(lambda: run.poll() is not None and not any(alive(p) for p in family), seconds=30)
            left = [p for p in family if alive(p)]
            assert gone, f"30 s after the kill, still there: {left}"
    finally:
        if run.poll() is None:
            run.kill()
        for process in family:
            if alive(process):
                process.kill()
    palimpsest("run", str(EXPERIMENT), "--set", f"store={store}")
    found = contents(store)
    for table, rows in unkilled.items():
        assert found[table] == rows, f"table {table} differs after {role} was killed"
    assert [commit for commit in Store(store).commits("prepare").values() if commit.status != "done"] == []


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
