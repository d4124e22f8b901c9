"""The commands that look at a store and keep it in order."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from storage.catalog import query
from storage.commits import CommitInfo
from storage.errors import StorageError
from storage.store import Store
from tasks.identity import ModelRef, Unit
from tasks.pool import Failure
from tasks.session import record_failure
from tasks.stopping import Stop, stops

MODEL = ModelRef(name="m", folder="/", revision=None, dtype="float32", digest="d", n_layers=1, family="gpt2")


def ask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    for unit in range(4):
        made.commit("run-a", f"unit-{unit}", {"edits": [{"round": unit, "position": unit}]}, CommitInfo(kind="own"))
    return made


def test_units_that_were_given_up_are_listed_with_their_tracebacks(store: Store) -> None:
    unit = Unit(run_id="run-a", unit_id="segment-000000", kind="segment", model=MODEL, payload={})
    failure = Failure("ValueError: no\nmore of it", "Traceback ...\n  line 7\nValueError: no")
    for _ in range(2):
        record_failure(store, unit, failure)
    said = ask("status", "--store", store.location).stdout
    assert said.count("run-a segment-000000: ValueError: no\n") == 2 and "line 7" not in said
    assert ask("status", "run-a", "--store", store.location).stdout.count("  line 7") == 2
    assert store.gave_up("run-a", "segment-000000") and store.failures("run-a", "segment-000000") == 2
    assert said.splitlines()[1].split()[-1] == "1", "one unit, twice"
    store.commit("run-a", "segment-000000", {}, CommitInfo(kind="segment", first_round=0, last_round=1))
    said = ask("status", "--store", store.location).stdout
    assert "ValueError" not in said and said.splitlines()[1].split()[-1] == "0", "it has been done since"


def test_compacted_cleared_withdrawn_removed_and_merged(store: Store, tmp_path: Path) -> None:
    place = ("--store", store.location)
    assert "1 of 1 runs and preparations compacted" in ask("compact", *place).stdout
    assert "would delete 9 files" in ask("gc", "--grace", "0", "--dry-run", *place).stdout, "commits, data, clock"
    assert "deleted 0 files" in ask("gc", *place).stdout, "all of it is young"
    assert "deleted 9 files" in ask("gc", "--grace", "0", *place).stdout
    assert "withdrawn unit-2 of run-a" in ask("withdraw", "run-a", "unit-2", *place).stdout
    assert query(store.location, "SELECT count(*) AS n FROM edits").to_pylist() == [{"n": 3}]
    said = ask("merge", store.location, "--store", tmp_path / "new").stdout
    assert "copied 3 units of 1 runs and preparations, and 0 artifacts" in said
    assert "removed run-a: 3 units" in ask("rm", "run-a", *place).stdout
    assert store.run_ids() == [] and Store(tmp_path / "new").run_ids() == ["run-a"]


def test_cancel_reaches_the_drivers_that_run_now(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.stopping._POLL_S", 0.0)

    def reasons(*drivers: Stop) -> list[str | None]:
        return [driver.reason() for driver in drivers]

    with stops(store, "grid") as grid, stops(store, "other") as other, stops(store, "third") as third:
        assert reasons(grid, other, third) == [None, None, None]
        ask("cancel", "grid", "--store", store.location)
        ask("cancel", "other", "--store", store.location)
        assert reasons(grid, other, third) == ["cancelled", "cancelled", None]
        with stops(store, "grid") as later:
            assert reasons(later) == [None], "it was asked of those before it"
            for request in (Path(store.location) / "control").glob("cancel-*"):
                request.unlink()
            assert reasons(third, later) == [None, None], "a request that is gone is none"
            ask("cancel", "--store", store.location)
            assert reasons(third, later) == ["cancelled"] * 2


def test_a_unit_that_is_not_there_cannot_be_withdrawn(store: Store) -> None:
    with pytest.raises(StorageError, match="run 'run-a' has no unit 'unit-77'"):
        ask("withdraw", "run-a", "unit-77", "--store", store.location)


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_run_that_is_not_there(store: Store, command: str) -> None:
    with pytest.raises(StorageError, match=r"no run 'run-b' in .*near it: \['run-a'\]"):
        ask(command, "run-b", "--store", store.location)
