"""What an experiment will cost, told before anything has run."""

import json
import shutil
from pathlib import Path

import pytest

from editing.model.bundled import bundled_folder
from flows import lacking
from flows.costs import DEVICES, costs, shapes_of
from flows.experiment_file import load_experiment
from flows.forecast import forecast
from flows.inputs import read_inputs
from flows.plan import plan_experiment
from flows.several_models import plan_each, read_each
from flows.spec_values import SpecError
from storage.cleaning import remove_run
from storage.store import Store
from tasks.workers.worker import Worker
from tests.flows.support import GOOD, write
from tests.tasks.support import all_stages, plan, prepare


def estimated(tmp_path: Path, device: str | None = "h200", **changes: object) -> tuple[dict[str, float], str]:
    inputs = read_inputs(load_experiment(write(tmp_path, **changes)))
    rows, said = costs(plan_experiment(inputs), inputs.requests, device)
    return {row["stage"]: row["PFLOP"] for row in rows}, said


def test_weights_are_counted_by_the_files_headers() -> None:
    folder = bundled_folder("factworld-tiny")
    assert folder is not None
    config = json.loads((folder / "config.json").read_text())
    shapes = shapes_of(folder, config["num_hidden_layers"])
    d, ff = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config.get("head_dim", d // config["num_attention_heads"])
    assert shapes.block == pytest.approx(2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d, rel=0.02)


def test_a_target_search_costs_what_its_steps_cost(tmp_path: Path) -> None:
    few, _ = estimated(tmp_path, editors=[{"name": "memit", "steps": 10}])
    many, _ = estimated(tmp_path, editors=[{"name": "memit", "steps": 20}])
    assert 1.7 < many["editing"] / few["editing"] < 2.01 and few["scoring"] == many["scoring"]
    double, _ = estimated(tmp_path, editors=[{"name": "memit", "steps": 10}], facts={"name": "factworld", "size": 16})
    assert double["editing"] == pytest.approx(2 * few["editing"], rel=0.05)
    assert few["all"] == pytest.approx(sum(value for stage, value in few.items() if stage != "all"))


def test_every_stage_is_counted(tmp_path: Path) -> None:
    found, said = estimated(
        tmp_path, locate={"search": {"edits": 4}, "trace": {"facts": 2}}, editors=["memit", {"name": "malmen", "edits": 4}],
        training={"validation": 8}, layers=[[4, 5]],
    )  # fmt: skip
    assert found.keys() == {"second moments", "training", "layer search", "tracing", "editing", "scoring", "all"}
    assert "one h200, 67 TFLOP/s peak in float32" in said and "within a factor of three" in said


def test_each_models_numbers_have_their_own_rate(tmp_path: Path) -> None:
    """Whichever of them comes first."""
    folder = tmp_path / "half"
    bundled = bundled_folder("factworld-tiny")
    assert bundled is not None
    shutil.copytree(bundled, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    seconds, told = [], []
    both = ["factworld-tiny", {"name": str(folder), "dtype": "bfloat16"}]
    for models in (both, both[::-1]):
        file = {
            "name": "t",
            "models": models,
            "facts": {"name": "factworld", "size": 8},
            "editors": ["ft"],
            "layers": [0],
            "batch_sizes": [1],
            "store": str(tmp_path / "store"),
        }
        inputs = read_each(load_experiment(file))
        rows, said = costs(plan_each(inputs), inputs[0].requests, "h100")
        seconds.append([row["one worker"] for row in rows])
        told.append(said)
    assert seconds[0] == seconds[1]
    assert all("67 TFLOP/s peak in float32" in said and "989 TFLOP/s peak in half" in said for said in told)


def test_one_models_files_in_two_dtypes_are_two_models(tmp_path: Path) -> None:
    bundled = bundled_folder("factworld-tiny")
    assert bundled is not None
    copy = shutil.copytree(bundled, tmp_path / "copy")

    def cost(*models: dict[str, str]) -> float:
        file = GOOD | {"models": list(models), "store": str(tmp_path / "store")}
        inputs = read_each(load_experiment({name: value for name, value in file.items() if name != "model"}))
        planned = plan_each(inputs)
        assert len(planned.models) == len(models)
        return {row["stage"]: row["PFLOP"] for row in costs(planned, inputs[0].requests, "h100")[0]}["all"]

    whole, half = {"name": "factworld-tiny", "dtype": "float32"}, {"name": str(copy), "dtype": "bfloat16"}
    assert cost(whole, half) == pytest.approx(2 * cost(whole))


def test_this_machine_is_measured_and_devices_are_known(tmp_path: Path) -> None:
    _, said = estimated(tmp_path, None)
    assert "GFLOP/s of one thread here, measured now" in said
    with pytest.raises(SpecError, match="--device 'abacus': expected one of"):
        estimated(tmp_path, "abacus")
    assert "h200" in DEVICES


def test_shared_targets_cost_once(tmp_path: Path) -> None:
    """MEMIT and EMMET of two batch sizes search for the same targets, if every batch starts from the unedited model."""
    facts = {"name": "factworld", "size": 8}
    one, _ = estimated(tmp_path, facts=facts, batch_sizes=[4], mode="independent")
    four, _ = estimated(tmp_path, facts=facts, editors=["memit", "emmet"], batch_sizes=[4, 8], mode="independent")
    in_turn, _ = estimated(tmp_path, facts=facts, editors=["memit", "emmet"], batch_sizes=[4, 8])
    assert four["editing"] < 1.5 * one["editing"]
    # In sequence the first batches share theirs: 8 searches for four of 4, and 12 alone.
    assert 2 * one["editing"] < in_turn["editing"] < 3 * one["editing"]


def test_what_the_store_holds_costs_nothing(tmp_path: Path) -> None:
    wanted = {"locate": {"search": {"edits": 4}, "trace": {"facts": 2}}, "batch_sizes": [2, 4]}
    planned = plan(tmp_path, **wanted)
    rows, said = costs(planned, (), "h200")
    before = {row["stage"]: row["PFLOP"] for row in rows}
    assert before.keys() == {"second moments", "layer search", "tracing", "editing", "scoring", "all"}
    assert not all_stages(planned).failed
    rows, said = costs(planned, (), "h200")
    assert not rows and said == "cost: nothing is left to do"
    remove_run(Store(planned.store), planned.runs[1].run_id)
    again = {row["stage"]: row["PFLOP"] for row in costs(planned, (), "h200")[0]}
    assert again.keys() == {"editing", "scoring", "all"}
    assert 0 < again["editing"] < before["editing"] and 0 < again["scoring"] < before["scoring"]


def test_what_is_half_done_costs_half(tmp_path: Path) -> None:
    wanted = {"locate": {"search": {"edits": 4, "layers": [1, 2]}, "trace": {"facts": 2}}, "layers": "search"}
    planned = plan(tmp_path, **wanted)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    (trace,), (search,) = planned.traces, planned.searches

    def left() -> dict[str, float]:
        return {row["stage"]: row["PFLOP"] for row in costs(planned, (), "h200")[0]}

    whole = left()
    worker.do(trace.known_unit())
    assert left()["tracing"] == whole["tracing"], "that facts are known is no trace"
    for traced in trace.traces(store):
        worker.do(traced)
    assert "tracing" not in left()
    for unit in search.next_units(store):
        worker.do(unit)
    assert 0 < left()["layer search"] < 0.8 * whole["layer search"], "targets were shared"
    worker.do(search.next_units(store)[0])
    assert [unit.n_items for unit in search.units_left(store)] == [4]


def test_a_longer_run_in_the_store_leaves_nothing(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    assert not all_stages(planned).failed
    shorter = plan(tmp_path, facts={"name": "factworld", "size": 4})
    (row,) = (row for row in forecast(shorter)[0] if row["edits"])
    assert row["in store"] == row["edits"] == 4
    assert "expected editing time: 0 s" in " ".join(forecast(shorter)[1])
    assert all(0 <= lacking.left_of(Store(shorter.store), run).scores <= 1 for run in shorter.runs)


def test_texts_that_were_sampled_cost_nothing_for_another_layer(tmp_path: Path) -> None:
    own = {"second_moment": {"texts": "self", "n_texts": 64, "text_tokens": 16}}
    planned = plan(tmp_path, layers=[[0]], **own)
    before = {row["stage"] for row in costs(planned, (), "h200")[0]}
    assert {"second moments", "sampling texts"} <= before
    prepare(planned, Worker(planned.store))
    other = {row["stage"] for row in costs(plan(tmp_path, layers=[[1]], **own), (), "h200")[0]}
    assert "second moments" in other and "sampling texts" not in other
