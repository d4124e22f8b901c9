"""Runs by name, beginning, pattern, experiment and setting; and what is shown before they go."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.options import run_named
from flows.runs_meant import runs_meant
from storage.errors import StorageError
from storage.sql import query
from storage.store import Store
from tests.docs.planted import plant


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    plant(made)
    return made


def ask(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--store", store.location])


def test_a_beginning_that_is_one_runs_names_it(store: Store) -> None:
    assert run_named(store.location, "memit-b20") == "memit-b20-0000000000"
    assert run_named(store.location, "memit-b1-0000000000") == "memit-b1-0000000000"
    with pytest.raises(StorageError, match=r"'memit-b' begins 3 runs .*give more letters"):
        run_named(store.location, "memit-b")
    with pytest.raises(StorageError, match="no run 'x'"):
        run_named(store.location, "x")


def test_patterns_experiments_and_settings(store: Store) -> None:
    assert len(runs_meant(store, ["memit-*", "rome-b1-0000000000"])) == 4
    assert len(runs_meant(store, [], experiment="grid")) == 10
    assert len(runs_meant(store, ["rome-*"], experiment="grid")) == 3
    (emmet,) = {row["setting"] for row in query(store, "FROM setting_summary WHERE editor = 'emmet'").to_pylist()}
    assert runs_meant(store, [], setting=emmet[:6]) == ["emmet-b1-0000000000", "emmet-b1-0000000001"]
    assert "none-b1-hand" not in runs_meant(store, ["*"]), "patterns are of runs of edits"
    assert "none-b1-hand" not in runs_meant(store, ["rome-*"], experiment="grid"), "others are compared with it"
    for given, asked in (
        ([""], {}),
        ([], {"experiment": ""}),
        ([], {"setting": ""}),
        ([], {"setting": "N"}),
        (["memit"], {}),
        (["x*"], {}),
        ([], {"experiment": "gird"}),
        ([], {"setting": "zz"}),
    ):
        with pytest.raises(StorageError):
            runs_meant(store, given, **asked)
    with pytest.raises(StorageError, match=r"no run of experiment 'gird' .*expected one of \['grid'\]"):
        runs_meant(store, [], experiment="gird")


def test_several_runs_are_shown_and_not_removed_unasked(store: Store) -> None:
    before = store.run_ids()
    shown = ask(store, "rm", "memit-*")
    assert shown.exit_code == 1 and "3 runs of" in shown.output and "nothing was done: say --yes" in shown.output
    assert "memit-b20" in shown.output and store.run_ids() == before
    done = ask(store, "rm", "memit-*", "--yes")
    assert done.exit_code == 0 and "removed 3 runs with 3 units" in done.output
    assert set(before) - set(store.run_ids()) == {f"memit-b{size}-0000000000" for size in (1, 4, 20)}
    assert ask(store, "rm").exit_code == 2, "nothing is named"


def test_units_of_several_runs_are_withdrawn(store: Store) -> None:
    done = ask(store, "withdraw", "rome-*", "segment-*", "--yes")
    assert done.exit_code == 0 and "withdrawn 3 units of 3 runs; the next `run` does them again" in done.output
    assert query(store, "FROM rounds WHERE run_id LIKE 'rome%'").num_rows == 0
    done = ask(store, "withdraw", "segment-*", "--experiment", "grid", "--yes")
    assert "withdrawn 6 units of 7 runs" in done.output


def test_the_last_line_says_how_much_is_done(store: Store) -> None:
    (last, *_) = [line for line in ask(store, "status").output.splitlines() if " units done" in line]
    assert last == "11 of 11 units done, 1 given up"
