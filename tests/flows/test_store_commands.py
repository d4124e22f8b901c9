"""The commands that look at a store and keep it in order."""

import resource
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from storage.commits import CommitInfo
from storage.errors import StorageError
from storage.sql import query
from storage.store import Store
from tasks.driver.session import record_failure
from tasks.driver.stopping import Stop, stops
from tasks.driver.totals import remember_totals
from tasks.workers.pool import Failure
from tests.end_to_end.support import ROOT
from tests.tasks.fakes import FakeUnit

DEMO = ROOT / "flows/experiments/demo.yaml"


def ask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    for unit in range(4):
        made.commit("run-a", f"unit-{unit}", {"edits": [{"round": unit, "position": unit}]}, CommitInfo(kind="own"))
    return made


def test_units_that_were_given_up_are_listed_with_their_tracebacks(store: Store) -> None:
    unit = FakeUnit(run_id="run-a", name="segment-000000")
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
    monkeypatch.setattr("tasks.driver.stopping._POLL_S", 0.0)

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_a_run_is_cancelled_one_signal_ends_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """What asked is all the same: the first signal afterwards is the second."""
    monkeypatch.setattr("tasks.driver.stopping._POLL_S", 0.0)
    heard: list[int] = []
    before = signal.signal(number, lambda n, _: heard.append(n))
    try:
        with stops(store, "grid") as grid:
            ask("cancel", "grid", "--store", store.location)
            assert grid.reason() == "cancelled" and not heard
            signal.raise_signal(number)
            assert heard == [number]
        with stops(store, "grid") as grid:
            signal.raise_signal(number)
            assert grid.reason() is not None and heard == [number], "the first one asks"
            signal.raise_signal(number)
            assert heard == [number, number]
    finally:
        signal.signal(number, before)


def test_status_shows_units_of_how_many_and_runs_that_were_not_begun(store: Store) -> None:
    def units(run_id: str, count: int) -> list[FakeUnit]:
        return [FakeUnit(run_id=run_id, name=f"unit-{i}") for i in range(count)]

    def rows() -> dict[str, list[str]]:
        lines = ask("status", "--store", store.location).stdout.splitlines()[1:]
        return {line.split()[0]: line.split() for line in lines if not line.endswith(" units done")}

    assert " of " not in " ".join(rows()["run-a"]), "no driver has said how many"
    store.commit("run-a", "recipe-own-000000", {}, CommitInfo(kind="recipe"))
    remember_totals(store, "grid", [*units("run-a", 9), *units("run-b", 3)], whole=True)
    assert "4 of 9" in " ".join(rows()["run-a"]) and "not begun – 0 of 3" in " ".join(rows()["run-b"])
    remember_totals(store, "grid", units("run-a", 5), whole=False)
    assert "4 of 9" in " ".join(rows()["run-a"]), "a stage of some of them leaves the total"
    remember_totals(store, "grid", units("run-a", 2), whole=True)
    assert "4 of 4" in " ".join(rows()["run-a"]), "less is wanted than is done"
    remember_totals(store, "other", [], whole=True, runs=["run-a"])
    assert "4 of 4" in " ".join(rows()["run-a"]), "nothing is left of it"
    ask("rm", "run-a", "--store", store.location)
    assert set(rows()) == {"run-b"}
    assert "planned and not begun" in ask("rm", "run-b", "--store", store.location).stdout and rows() == {}


def forget_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `run` find no home of Prefect's, and let the one that it sets be forgotten afterwards."""
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("place", ["afile", "afile/below"])
@pytest.mark.parametrize("command", ["plan", "run", "status", "query"])
def test_a_file_in_the_place_of_a_store_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    forget_prefect(monkeypatch)
    (tmp_path / "afile").write_text("no store")
    at = tmp_path / place
    arguments = {"status": [], "query": ["SELECT 1"]}
    with pytest.raises(StorageError, match=rf"{tmp_path}/afile is a file; expected a directory"):
        ask(command, *arguments.get(command, [DEMO]), "--store", at)


def test_a_disk_that_is_full_from_the_start_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses to write more than so many bytes into a file, as it does where the disk is full."""
    forget_prefect(monkeypatch)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(StorageError, match=rf"{tmp_path}/store/\S* takes no 8 MiB.*File too large.*free space"):
            ask("run", DEMO, "--set", f"store={tmp_path}/store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_answer_is_not_written_below_the_store(store: Store, tmp_path: Path) -> None:
    inside = Path(store.location) / "edits" / "answer.csv"
    with pytest.raises(StorageError, match="lies in the store"):
        ask("query", "FROM edits", "--store", store.location, "--format", "csv", "--out", inside)
    assert not inside.exists()
    ask("query", "SELECT 1 AS a", "--store", store.location, "--format", "csv", "--out", tmp_path / "answer.csv")
    assert (tmp_path / "answer.csv").read_text() == "a\n1\n"
    with pytest.raises(StorageError, match="does more than read"):
        ask("query", f"COPY edits TO '{tmp_path}/x.csv'", "--store", store.location)
    ask("query", f"COPY (SELECT 1 AS a) TO '{tmp_path}/x.csv'", "--store", store.location, "--write")
    assert (tmp_path / "x.csv").exists()


def test_a_unit_that_is_not_there_cannot_be_withdrawn(store: Store) -> None:
    with pytest.raises(StorageError, match="run 'run-a' has no unit 'unit-77'"):
        ask("withdraw", "run-a", "unit-77", "--store", store.location)


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_run_that_is_not_there(store: Store, command: str) -> None:
    with pytest.raises(StorageError, match=r"no run 'run-b' in .*near it: \['run-a'\]"):
        ask(command, "run-b", "--store", store.location)
