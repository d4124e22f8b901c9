"""What a run tells of itself while it is under way, and what its units said."""

import json
import logging
import os
import platform
import shutil
import threading
import time
import warnings
from pathlib import Path

import pytest

from storage.sql import query
from storage.store import Store
from tasks.driver.heartbeat import Heartbeat, is_under_way, read_progress
from tasks.driver.stage_progress import StageProgress
from tasks.driver.watching import progress_row, watch_progress
from tasks.workers.unit_log import UnitLog
from tests.end_to_end.support import wait_until
from tests.tasks.support import run_all


def busy() -> dict[str, float]:
    return {"busy": 2, "idle": 1, "starting": 0, "gpus": 1.5, "all_gpus": 4.0}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return Store(tmp_path / "store", create=True).location


def test_a_stage_is_told_as_it_goes(store: str) -> None:
    heartbeat = Heartbeat(store, "grid", busy)
    stage = StageProgress("edit and score", 40.0, 4)
    with heartbeat.stage(stage):
        stage.advance(10.0)
        stage.since -= 30.0
        assert stage.left_s == pytest.approx(90.0, abs=10.0), "three quarters of the cost are left, a quarter took 30 s"
        time.sleep(2.5)
        (told,) = read_progress(store)
        assert (told["stage"], told["done"], told["units"], told["share"]) == ("edit and score", 1, 4, 0.25)
        row = progress_row(told | {"seconds": 30.0, "left_s": 90.2}, silent=False)
        assert row["units"] == "1/4" and row["per minute"] == "2.0" and row["done"] == "25%" and row["ETA"] == "0:01:30"
        assert row["workers"] == "2 of 3 busy" and row["GPUs"] == "1.5 of 4" and row["state"] == "under way"
    heartbeat.close("completed")
    (told,) = read_progress(store)
    assert told["ended"] == "completed" and "stage" not in told


def test_a_store_that_is_away_does_not_hold_a_run_up(store: str) -> None:
    heartbeat = Heartbeat(store, "grid", busy)
    shutil.move(store, f"{store}-away")
    began = time.monotonic()
    with heartbeat.stage(StageProgress("prepare", 1.0, 1)):
        pass
    heartbeat.close("failed")
    assert time.monotonic() - began < 10 and not Path(store).exists()


def test_a_server_that_does_not_answer_does_not_silence_a_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(Heartbeat, "_tell_prefect", lambda self: answer.wait(60))
    heartbeat = Heartbeat(store, "grid", busy)
    time.sleep(5)
    (told,) = read_progress(store)
    assert told["beat"] >= 2, "the store is told all the same"
    began = time.monotonic()
    heartbeat.close("completed")
    assert time.monotonic() - began < 10
    assert read_progress(store)[0]["ended"] == "completed"
    answer.set()


def test_two_drivers_of_one_experiment_do_not_speak_for_each_other(store: str) -> None:
    other = {"experiment": "grid", "driver": "elsewhere:1", "beat": 3, "ended": None, **busy()}
    Store(store).files.write("control/progress-grid-elsewhere-1.json", json.dumps(other).encode())
    Heartbeat(store, "grid", busy).close("failed")
    assert sorted((row["driver"], row["ended"]) for row in read_progress(store))[0] == ("elsewhere:1", None)
    Heartbeat(store, "grid", busy).close("completed")
    assert sorted(str(row["ended"]) for row in read_progress(store)) == ["None", "completed"], "its own is told anew"


def test_a_driver_is_known_by_its_changing_word(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.driver.heartbeat._EVERY_S", 0.2)
    assert is_under_way(store, "grid") is None
    heartbeat = Heartbeat(store, "grid", busy)
    assert wait_until(lambda: bool(read_progress(store)), seconds=10)
    assert is_under_way(store, "grid") == f"{platform.node()}:{os.getpid()}" and is_under_way(store, "other") is None
    heartbeat.close("completed")
    assert is_under_way(store, "grid") is None
    killed = {"experiment": "grid", "driver": "elsewhere:1", "beat": 3, "ended": None, **busy()}
    Store(store).files.write("control/progress-grid-elsewhere-1.json", json.dumps(killed).encode())
    assert is_under_way(store, "grid") is None, "it says nothing new"


def test_watching_ends_when_the_last_run_has_ended_or_is_silent(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    heartbeat = Heartbeat(store, "done", busy)
    heartbeat.close("completed")
    lost = {"experiment": "lost", "driver": "h:1", "beat": 7, "ended": None, **busy()}
    Store(store).files.write("control/progress-lost-h-1.json", json.dumps(lost).encode())
    watch_progress(store, every_s=0.01)
    shown = capsys.readouterr().err.splitlines()
    assert any("experiment done" in line and "state completed" in line for line in shown)
    assert [line.rpartition("state ")[2] for line in shown if "experiment lost" in line][-1] == "silent"


def test_a_log_keeps_what_was_said_and_leaves_no_trace() -> None:
    log, before = UnitLog(), list(logging.getLogger().handlers)
    with log.listening():
        logging.getLogger("tasks.runs.ledger").info("replayed")
        logging.getLogger("httpx").info("somebody else's chatter")
        warnings.warn("a matrix is nearly singular", stacklevel=1)
    logging.getLogger("tasks.runs.ledger").info("after the unit")
    assert logging.getLogger().handlers == before
    text = log.text() or ""
    assert "INFO tasks.runs.ledger: replayed" in text and "nearly singular" in text
    assert "chatter" not in text and "after" not in text
    assert UnitLog().text() is None, "nothing was said"


def test_a_long_log_keeps_its_end() -> None:
    log = UnitLog()
    with log.listening():
        for i in range(2000):
            logging.getLogger("tasks").info("line %d", i)
    text = log.text() or ""
    assert len(text) < 21_000 and "line 1999" in text and "characters left out" in text


@pytest.mark.slow
def test_units_logs_are_in_the_store(tmp_path: Path) -> None:
    _, planned = run_all(tmp_path)
    logs = query(planned.store, "SELECT unit_id, log FROM commits WHERE log IS NOT NULL").to_pylist()
    assert any("factworld-tiny loaded to cpu" in row["log"] for row in logs)
