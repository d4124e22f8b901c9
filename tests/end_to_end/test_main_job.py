"""The main job through the command line, as a user runs it: a real Prefect flow, a real Ray cluster, real Parquet."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from flows.cli import app
from storage.sql import query
from tests.end_to_end.support import EXPERIMENT, contents, palimpsest
from tests.storage.test_views import check_columns

pytestmark = pytest.mark.xdist_group("main job")  # one run, at which all of them look


def run_id(store: Path, editor: str) -> str:
    (row,) = query(store, f"SELECT run_id FROM runs WHERE editor = '{editor}'").to_pylist()
    return str(row["run_id"])


@pytest.mark.slow
def test_every_stage_leaves_its_rows(tiny_store: Path) -> None:
    (counts,) = query(
        tiny_store,
        """SELECT (SELECT count(*) FROM edits) AS edits, (SELECT count(DISTINCT layer) FROM layer_scores) AS layers,
                  (SELECT count(DISTINCT fact_id) FROM traces) AS traced, (SELECT count(*) FROM runs) AS runs,
                  (SELECT count(DISTINCT scored_at) FROM benchmark_answers) AS benchmark_points,
                  (SELECT count(*) FROM commits WHERE kind = 'targets') AS shared_targets""",
    ).to_pylist()
    assert counts == {
        "edits": 96,
        "layers": 6,
        "traced": 4,
        "runs": 5,
        "benchmark_points": 6,
        "shared_targets": 2,
    }
    summary = {row["editor"]: row for row in query(tiny_store, "SELECT * FROM run_summary").to_pylist()}
    assert set(summary) == {"none", "rome", "memit", "emmet", "ft_c"}
    assert summary["none"]["efficacy"] < 0.1 < 0.9 < summary["none"]["neighborhood"], "the model knows the true facts"
    assert summary["memit"]["efficacy"] > 0.6 and summary["rome"]["efficacy"] > 0.6
    best = query(tiny_store, "SELECT layer FROM layer_summary ORDER BY score DESC, layer LIMIT 1").to_pylist()
    assert summary["rome"]["layers"] == [best[0]["layer"]], "the runs take the layer that the search found"


@pytest.mark.slow
def test_the_views_hold_what_they_declare(tiny_store: Path) -> None:
    assert check_columns(tiny_store) == []


@pytest.mark.slow
def test_scores_in_the_store_are_those_of_the_checked_out_model(tiny_store: Path, tmp_path: Path) -> None:
    rome = run_id(tiny_store, "rome")
    said = palimpsest("checkout", rome, "--after", "12", "--out", str(tmp_path / "model"), "--store", str(tiny_store))
    assert "agree with those recorded" in said.stdout
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    (row,) = query(tiny_store, f"SELECT * FROM logits WHERE run_id = '{rome}' AND edits_so_far = 12").to_pylist()
    logits = model(**tokenizer(row["prompt"], return_tensors="pt")).logits[0, -1].double()
    expected = torch.tensor(row["logits"], dtype=torch.float64)
    assert float((logits - expected).norm() / expected.norm()) < 1e-5
    pristine = AutoModelForCausalLM.from_pretrained(
        Path(__file__).parents[2] / "editing/factworld/models/factworld-tiny"
    )
    other = pristine(**tokenizer(row["prompt"], return_tensors="pt")).logits[0, -1].double()
    assert float((other - expected).norm() / expected.norm()) > 1e-3, "the unedited model says something else"
    sql = f"""SELECT prompt, fact_scores.* FROM fact_scores JOIN probes USING (fact_id, probe_id)
              WHERE fact_scores.run_id = '{rome}' AND purpose = 'retention' AND edits_so_far = 12
              AND fact_scores.kind = 'rewrite'"""
    rows = query(tiny_store, sql).to_pylist()
    assert len(rows) == 12
    for row in rows:
        ids = tokenizer(row["prompt"])["input_ids"] + row["argmax_new"][:-1]
        best = model(torch.tensor([ids])).logits[0, -len(row["argmax_new"]) :].argmax(-1).tolist()
        assert best[0] == row["argmax_new"][0]


@pytest.mark.slow
def test_checkout_refuses_what_is_no_round_boundary(tiny_store: Path, tmp_path: Path) -> None:
    memit = run_id(tiny_store, "memit")
    done = palimpsest(
        "checkout", memit, "--after", "10", "--out", str(tmp_path / "m"), "--store", str(tiny_store), check=False
    )
    assert done.returncode == 2 and "the nearest state is --after 8" in done.stderr


@pytest.mark.slow
def test_running_again_does_nothing_and_plan_says_what_a_longer_run_adds(tiny_store: Path) -> None:
    before = contents(tiny_store)
    again = palimpsest("run", str(EXPERIMENT), "--set", f"store={tiny_store}", PREFECT_API_URL="")
    assert contents(tiny_store) == before and "edit and score" not in again.stderr and "report: " in again.stdout
    assert not (tiny_store / "_prefect").exists(), "no server was started for it"
    assert (tiny_store / "report-tiny.html").stat().st_size > 100_000
    plan = palimpsest("plan", str(EXPERIMENT), "--set", f"store={tiny_store}", "--set", "facts.size=28")
    assert "expected editing time" in plan.stdout and run_id(tiny_store, "ft_c") in plan.stdout


@pytest.mark.slow
def test_query_formats(tiny_store: Path, tmp_path: Path) -> None:
    sql = "SELECT editor, layers, efficacy FROM run_summary WHERE editor <> 'none' ORDER BY editor"
    out = tmp_path / "rows.parquet"

    def ask(*options: str) -> Result:
        return CliRunner().invoke(app, ["query", sql, *options, "--store", str(tiny_store)])

    assert "efficacy" in palimpsest("query", sql, "--store", str(tiny_store)).stdout
    rows = json.loads(ask("--format", "json").stdout)
    assert [row["editor"] for row in rows] == ["emmet", "ft_c", "memit", "rome"]
    assert ask("--format", "csv").stdout.splitlines()[0] == "editor,layers,efficacy"
    ask("--format", "table", "--out", str(out))
    assert out.read_text().split()[:3] == ["editor", "layers", "efficacy"]
    ask("--out", str(out))
    assert pq.read_table(out).num_rows == 4
    assert "expected one of ['table', 'csv', 'json', 'parquet']" in str(ask("--format", "xml").exception)


@pytest.mark.minutes
def test_doctor_reports_what_works(tmp_path: Path) -> None:
    done = palimpsest("doctor", "--store", str(tmp_path / "none"))
    for check in ("packages", "ray", "prefect", "model"):
        assert check in done.stdout
    assert "fails" not in done.stdout
