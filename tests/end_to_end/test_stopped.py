"""A run that is asked to end finishes what it has begun, and goes on as if nothing had happened."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.servers import flow_runs, prefect_server
from tests.end_to_end.support import CHAINS, ROOT, contents, descendants, palimpsest, start, wait_until
from tests.end_to_end.test_killed import alive, ended, segments_done


@pytest.mark.minutes
def test_stopped_runs_end_with_the_same_rows(chains_store: Path, server: dict[str, str], tmp_path: Path) -> None:
    """Ctrl-C, a store that is away for a while, and ``cancel``, one after another; then to the end."""
    store, log = tmp_path / "store", tmp_path / "log"
    given = ("run", str(CHAINS), "--set", f"store={store}", "--set", "compute.actors=1")

    run = start(*given, log=log, **server)
    with ended(run):
        assert wait_until(lambda: segments_done(store) >= 1 or run.poll() is not None, seconds=240)
        before = n_commits(store)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the driver and all that it has started
        assert run.wait(120) == 130, log.read_text()[-3000:]
    assert "interrupted: the units in work are finished" in log.read_text().replace("\n", " ")
    assert "units are not done; run the same command again to go on" in log.read_text().replace("\n", " ")
    assert "Finished in state" not in log.read_text(), "an end that was asked for is no error"
    assert n_commits(store) > before, "what was in work came to its end"

    run = start(*given, log=log, **server)
    with ended(run):
        before = segments_done(store)
        assert wait_until(lambda: segments_done(store) > before or run.poll() is not None, seconds=240)
        store.rename(tmp_path / "away")
        time.sleep(3)
        assert run.poll() is None and not store.exists(), "it waits, and makes no new store"
        (tmp_path / "away").rename(store)
        palimpsest("cancel", "chains", "--store", str(store))
        assert run.wait(120) == 130, log.read_text()[-3000:]
    assert "cancelled: " in log.read_text().replace("\n", " ")

    palimpsest(*given, **server)
    assert contents(store) == contents(chains_store)
    ended_as = [(run["state_type"], run["state"]["message"]) for run in flow_runs(server["PREFECT_API_URL"], store)]
    assert [state for state, _ in ended_as] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert str(ended_as[1][1]).startswith("cancelled: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seen", "number"), [pytest.param("uvicorn", signal.SIGINT, marks=pytest.mark.minutes), ("raylet", signal.SIGTERM)]
)
def test_a_run_that_is_stopped_while_it_starts_leaves_no_process(
    seen: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Prefect's server and Ray's cluster start side by side; the signal comes as soon as one of them is there."""
    store, log = tmp_path / "store", tmp_path / "log"
    run = start("run", str(CHAINS), "--set", f"store={store}", log=log, PREFECT_API_URL="")
    with ended(run) as family:

        def is_there() -> bool:
            family.update(descendants(run))
            return run.poll() is not None or any(seen in named(process) for process in family)

        assert wait_until(is_there, seconds=120) and run.poll() is None, log.read_text()[-3000:]
        # As a terminal does, to the driver and all that it has started; or as `kill` does, to the driver alone.
        os.killpg(run.pid, number) if number == signal.SIGINT else os.kill(run.pid, number)
        wait_until(lambda: family.update(descendants(run)) or run.poll() is not None, seconds=120)
        assert run.poll() not in (0, None), log.read_text()[-3000:]
        wait_until(lambda: not any(alive(process) for process in family), seconds=60)
        assert [named(process) for process in family if alive(process)] == []
    assert segments_done(store) == 0


def named(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


@pytest.mark.slow
@pytest.mark.minutes
def test_prefects_server_dies_under_a_run(chains_store: Path, tmp_path: Path) -> None:
    """Every unit is done nevertheless, and the report written; the driver says what nobody could be told."""
    store, log = tmp_path / "store", tmp_path / "log"
    with prefect_server(tmp_path / "home") as server:
        run = start("run", str(CHAINS), "--set", f"store={store}", log=log, **server)
        assert wait_until(lambda: segments_done(store) >= 2 or run.poll() is not None, seconds=240)
    with ended(run):
        assert run.wait(900) == 2, log.read_text()[-3000:]
    said = " ".join(log.read_text().split())
    assert f"error: Prefect's server at {server['PREFECT_API_URL']} went away" in said, said[-3000:]
    assert "does not know how the run ended" in said, said[-3000:]
    assert contents(store) == contents(chains_store) and (store / "report-chains.html").exists()


def n_commits(store: Path) -> int:
    return len(list((store / "commits").rglob("*.json")))


SHIFTED_CLOCK = """
import datetime, importlib.abc, importlib.machinery, os, sys, time
shift, real = float(os.environ.get("TEST_CLOCK_SHIFT", 0)), time.time
time.time = lambda: real() + shift

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "storage.store":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            module.datetime = Shifted
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
"""For ``sitecustomize``: the clock of Python, and that of commits, is so many seconds off."""


@pytest.mark.slow
@pytest.mark.minutes
def test_two_drivers_whose_clocks_differ_do_every_unit_once(
    chains_store: Path, server: dict[str, str], tmp_path: Path
) -> None:
    store, clock = tmp_path / "store", tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    given = ("run", str(CHAINS), "--set", f"store={store}", "--set", "compute.actors=1")
    logs = [tmp_path / "log-0", tmp_path / "log-1"]
    runs = [
        start(
            *given,
            log=log,
            PYTHONPATH=f"{clock}:{ROOT}",
            TEST_CLOCK_SHIFT=str(i * -86_400),
            **server,
        )
        for i, log in enumerate(logs)
    ]
    with ended(runs[0]), ended(runs[1]):
        codes = [run.wait(400) for run in runs]
    said = [log.read_text()[-2000:] for log in logs]
    assert 0 in codes, said
    # One may find the last units in the other's hands, and say so.
    assert all(
        code == 0 or "neither done nor given up" in " ".join(text.split())
        for code, text in zip(codes, said, strict=True)
    )
    palimpsest(*given, **server)
    assert contents(store) == contents(chains_store)
    days = {json.loads(path.read_text())["finished_at"][:10] for path in (store / "commits").rglob("*.json")}
    assert len(days) == 2, "both drivers committed units, a day apart"
