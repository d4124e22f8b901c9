"""A summary of a store answers as the store does, holds no weights and no paths, and cannot be gone on with."""

import json
from pathlib import Path

import pytest

from storage.cleaning import withdraw
from storage.errors import StorageError
from storage.marts import public_marts
from storage.merge import merge
from storage.sql import query
from storage.store import Store
from tasks.reports.report import write_report
from tasks.runs.published import export_summary, spec_without_places
from tasks.workers.checkout import checkout
from tests.tasks.support import all_stages, edited, plan

KEPT = ("facts", "probes", "edits", "rounds", "fact_scores", "edit_updates", "layer_scores", "benchmark_answers")


THINNED = {"fact_scores", "layer_scores"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store, Store, str]:
    folder = tmp_path_factory.mktemp("published")
    locate = {"search": {"editor": "ft_c", "edits": 2, "layers": [0, 1]}}
    planned = plan(folder, locate=locate)
    all_stages(planned)
    store = Store(planned.store)
    export_summary(store, folder / "summary")
    return folder, store, Store(folder / "summary"), edited(planned).run_id


def test_every_view_says_the_same(made: tuple[Path, Store, Store, str]) -> None:
    _, store, summary, _ = made
    for name in {*public_marts(), *KEPT} - THINNED:
        sql = f"SELECT * FROM {name} ORDER BY ALL"
        before, after = query(store, sql), query(summary, sql)
        assert after.to_pylist() == before.to_pylist(), name
    assert query(store, "SELECT count(*) AS n FROM layer_summary").to_pylist()[0]["n"] == 2
    assert write_report(summary, list(summary.run_ids())).location


def test_it_holds_neither_weights_nor_paths(made: tuple[Path, Store, Store, str]) -> None:
    folder, store, summary, _ = made
    files = {name.partition("/")[0] for name in summary.files.listing("")}
    assert not files & {"ledger", "logits", "artifacts", "_prefect", "control"}
    assert {"ledger", "artifacts"} <= {name.partition("/")[0] for name in store.files.listing("")}
    for table in ("runs", "commits"):
        for row in query(summary, f"SELECT * FROM {table}").to_pylist():
            said = json.dumps(row, default=str)
            assert str(folder.parent) not in said and "/bundled" not in said, row
    assert {row["host"] for row in query(summary, "SELECT host FROM commits").to_pylist()} == {""}
    assert {row["device"] for row in query(summary, "SELECT device FROM timings").to_pylist()} == {"cpu"}
    assert all("/" in row["device"] for row in query(store, "SELECT device FROM timings").to_pylist())


def test_paths_are_cut_wherever_they_stand_in_a_spec() -> None:
    spec = {
        "benchmarks": [{"path": "/home/somebody/sst2"}],
        "scores": {"perplexity": {"files": {"0a1b": "/home/somebody/texts.txt"}}},
        "model": {"folder": "/models/a", "name": "org/a", "file": None},
        "contexts_recipe": {"texts": ["/r/science says. "]},
    }
    assert json.loads(spec_without_places(json.dumps(spec))) == {
        "benchmarks": [{"path": "sst2"}],
        "scores": {"perplexity": {"files": {"0a1b": "texts.txt"}}},
        "model": {"folder": "a", "name": "org/a", "file": None},
        "contexts_recipe": {"texts": ["/r/science says. "]},
    }


def test_nothing_can_go_on_with_it(made: tuple[Path, Store, Store, str]) -> None:
    folder, store, summary, run_id = made
    before = sorted(summary.files.listing(""))
    with pytest.raises(StorageError, match=r"checkout needs weights and artifacts; .* is a summary of a store"):
        checkout(summary.location, run_id, after=4, out=folder / "out")
    with pytest.raises(StorageError, match="merge needs weights"):
        merge(store, summary)
    with pytest.raises(StorageError, match="run needs weights"):
        plan(folder, store=summary.location)
    with pytest.raises(StorageError, match="withdraw needs weights"):
        withdraw(summary, run_id, next(iter(summary.commits(run_id))))
    assert sorted(summary.files.listing("")) == before
