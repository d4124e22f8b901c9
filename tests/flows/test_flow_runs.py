"""What Prefect's records say of drivers on other hosts, which nobody here can look at."""

import json
import logging
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from flows.flow_runs import crashing_silent_runs, log_briefly
from flows.spec_values import SpecError
from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told_meanwhile", "waited", "expected"),
    [(None, True, "CRASHED"), (None, False, "RUNNING"), (8, True, "RUNNING")],
    ids=["silent", "too early", "at work"],
)
def test_a_run_whose_driver_elsewhere_is_silent_becomes_crashed(
    told_meanwhile: int | None,
    waited: bool,
    expected: str,
    server: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Store(str(tmp_path), create=True)
    monkeypatch.setattr("flows.flow_runs._SILENT_S", 0.0 if waited else 60.0)

    def told(driver: str, beat: int) -> None:
        row = {"experiment": "grid", "driver": driver, "beat": beat, "ended": None}
        (tmp_path / "control").mkdir(exist_ok=True)
        (tmp_path / f"control/progress-grid-{driver.replace(':', '-')}.json").write_text(json.dumps(row))

    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        tags = [f"store-{digest_of(str(tmp_path), length=10)}", "driver:elsewhere:17:1.00"]
        run = client.create_flow_run(flow(lambda: None, name="grid"), state=Running(), tags=tags)
        told("elsewhere:17", 7)
        told("elsewhere:18", 7)
        with crashing_silent_runs(str(tmp_path)):
            if told_meanwhile:
                told("elsewhere:17", told_meanwhile)
        found = client.read_flow_run(run.id).state
        assert found is not None and found.type.value == expected, found


def test_errors_that_say_what_is_wrong_are_logged_without_tracebacks() -> None:
    log_briefly()
    logger = logging.getLogger("prefect.task_runs")
    for error, is_kept in (
        (SpecError("facts: too few"), False),
        (InputError("no model"), False),
        (KeyError("n"), True),
    ):
        record = logger.makeRecord(logger.name, logging.ERROR, "f", 1, "failed", (), (type(error), error, None))
        assert logger.filter(record) and (record.exc_info is not None) == is_kept
