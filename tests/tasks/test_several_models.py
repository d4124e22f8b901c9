"""Several models in one experiment: one store, nothing shared, and figures that tell them apart."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.experiment_file import load_experiment
from flows.model_axis import of_each_model
from flows.several_models import plan_each, publish_each, read_each
from flows.spec import SpecError
from storage.sql import query
from storage.store import Store
from tasks.driver.plan import Plan
from tasks.workers.worker import Worker
from tests.tasks.support import BASE, all_stages

MODELS = ["factworld-tiny", "factworld-gpt2"]


def wanted(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    editors = [{"name": "memit", "steps": 6, "contexts": 2, "by_model": {"factworld-gpt2": {"steps": 4}}}]
    layers = {"factworld-tiny": [[0, 1]], "factworld-gpt2": [[0], [1]]}
    score = {"every_edits": 6, "text_tokens": 2}
    rest = {key: value for key, value in BASE.items() if key != "model"}
    return (
        rest
        | {"models": MODELS, "editors": editors, "layers": layers, "score": score, "store": str(tmp_path / "s")}
        | changes
    )


def planned(tmp_path: Path, **changes: Any) -> Plan:
    inputs = read_each(load_experiment(wanted(tmp_path, **changes)))
    publish_each(inputs)
    return plan_each(inputs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("models")
    known = {"name": "factworld", "size": 6, "known": "first_token"}
    plan = planned(folder, facts=known)
    worker = Worker(plan.store)
    for job in plan.knowledge:
        for unit in job.units():
            worker.do(unit)
    again = planned(folder, facts=known)
    all_stages(again)
    return again


def test_the_grid_gets_the_axis_and_each_model_has_its_own_numbers(tmp_path: Path) -> None:
    runs = [run for run in planned(tmp_path).runs if not run.is_unedited]
    assert [(run.model.name, run.layers, run.hparams["steps"]) for run in runs] == [
        ("factworld-tiny", (0, 1), 6),
        ("factworld-gpt2", (0,), 4),
        ("factworld-gpt2", (1,), 4),
    ]
    alone = planned(
        tmp_path, models=["factworld-tiny"], layers=[[0, 1]], editors=[{"name": "memit", "steps": 6, "contexts": 2}]
    )
    assert {run.run_id for run in alone.runs} <= {run.run_id for run in planned(tmp_path).runs}


def test_nothing_is_shared(finished: Plan) -> None:
    assert len(finished.models) == 2 and len(finished.contexts) == len(finished.moments) == 2
    rows = query(finished.store, "SELECT model, run_id, baseline_run_id, facts_run_id FROM runs").to_pylist()
    of = {name: [row for row in rows if row["model"] == name] for name in MODELS}
    for key in ("run_id", "facts_run_id"):
        assert {row[key] for row in of[MODELS[0]]}.isdisjoint(row[key] for row in of[MODELS[1]])
    baselines = {row["run_id"]: row["model"] for row in rows if row["baseline_run_id"] is None}
    assert all(baselines[row["baseline_run_id"]] == row["model"] for row in rows if row["baseline_run_id"])
    asked = query(finished.store, "SELECT model, count(DISTINCT run_id) AS n FROM knowledge GROUP BY model").to_pylist()
    assert {row["model"]: row["n"] for row in asked} == dict.fromkeys(MODELS, 1)
    moments = query(finished.store, "SELECT DISTINCT model, layer FROM second_moments ORDER BY ALL").to_pylist()
    assert [(row["model"], row["layer"]) for row in moments] == [
        ("factworld-gpt2", 0), ("factworld-gpt2", 1), ("factworld-tiny", 0), ("factworld-tiny", 1)
    ]  # fmt: skip
    assert not [c for run in rows for c in Store(finished.store).commits(run["run_id"]).values() if c.status != "done"]


def test_figures_and_comparisons_tell_models_apart(finished: Plan) -> None:
    from tasks.reports.labels import labelled

    rows = query(finished.store, "FROM setting_curve").to_pylist()
    shown = labelled(rows)
    assert {row["group"] for row in shown if row.get("setting")} == set(MODELS)
    compared = query(finished.store, "SELECT count(*) AS n FROM comparisons").to_pylist()
    of = query(
        finished.store,
        "SELECT count(*) AS n FROM comparisons c JOIN settings a ON a.setting = c.setting JOIN settings b "
        "ON b.setting = c.other_setting WHERE a.model <> b.model",
    ).to_pylist()
    assert compared[0]["n"] > 0 and of[0]["n"] == 0


def test_names_that_no_model_has(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"layers names 'factworld-gpt' \(did you mean 'factworld-gpt2'\?\)"):
        load_experiment(wanted(tmp_path, layers={"factworld-tiny": [0], "factworld-gpt": [0]}))
    editors = [{"name": "memit", "by_model": {"gpt2-xl": {"steps": 4}}}]
    with pytest.raises(SpecError, match=r"editors.0.by_model names 'gpt2-xl'"):
        load_experiment(wanted(tmp_path, editors=editors))
    with pytest.raises(SpecError, match=r"no layers; give them here"):
        load_experiment(wanted(tmp_path, layers={"factworld-tiny": [0]}))
    with pytest.raises(SpecError, match=r"two models are called 'factworld-tiny'"):
        load_experiment(wanted(tmp_path, models=["factworld-tiny", "factworld-tiny"], layers=[0]))
    with pytest.raises(SpecError, match=r"found model and models; expected one of them"):
        load_experiment(wanted(tmp_path) | {"model": "factworld-gpt2"})
    with pytest.raises(SpecError, match=r"no hyper-parameter \['stepz'\]"):
        load_experiment(wanted(tmp_path, editors=[{"name": "memit", "by_model": {"factworld-gpt2": {"stepz": 4}}}]))


def test_what_is_one_models_is_given_to_that_one(tmp_path: Path) -> None:
    def check_refused(match: str, **changes: Any) -> None:
        with pytest.raises(SpecError, match=match):
            load_experiment(wanted(tmp_path, **changes))

    check_refused(r"editors.0.targets belong to one model", editors=[{"name": "memit", "targets": "kv"}])
    check_refused(r"second_moment.files belong to one model", second_moment={"files": {0: "m.npz"}})

    def check_refused_for_one(match: str, **mine: Any) -> None:
        check_refused(match, editors=[{"name": "memit", "by_model": {"factworld-tiny": mine}}])

    check_refused_for_one(
        r"editors.0.by_model.factworld-tiny.batch_sizes.1: .*greater than 0 \(found 0\)", batch_sizes=[8, 0]
    )
    check_refused_for_one(r"editors.0.by_model.factworld-tiny.name: an editor's own key", name="emmet")
    check_refused_for_one(r"editors.0.by_model.factworld-tiny.by_model: an editor's own key", by_model={})
    (tmp_path / "deep").mkdir()
    editors = [{"name": "memit", "by_model": {"factworld-tiny": {"targets": "kv", "contexts_file": "c.json"}}}]
    file = tmp_path / "deep" / "a.yaml"
    file.write_text(yaml.safe_dump(wanted(tmp_path, editors=editors)))
    (mine, other) = of_each_model(load_experiment(file))
    assert mine.editors[0].targets == str(tmp_path / "deep" / "kv") and other.editors[0].targets is None
    assert mine.editors[0].contexts_file == str(tmp_path / "deep" / "c.json")


def test_an_experiment_that_was_read_can_be_read_again(tmp_path: Path) -> None:
    experiment = load_experiment(wanted(tmp_path))
    again = load_experiment(experiment)
    assert again.models == experiment.models and again.model.name == "factworld-tiny"
