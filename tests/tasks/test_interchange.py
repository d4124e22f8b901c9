"""What official code reads is written where it looks for it, and what it writes is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.forecast import forecast
from flows.spec_values import SpecError
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.exports import export as export_any
from tasks.units.work.interchange import OFFICIAL
from tests.tasks.support import all_stages, edited, plan

MEMIT = {"name": "memit", "steps": 6, "contexts": 2, "clamp": 4}
INDEPENDENT: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 4},
    "editors": [MEMIT],
    "batch_sizes": [1, 2],
    "mode": "independent",
    "score": {"every_edits": 0},
}
ROUNDS = "SELECT round, parameter, update_norm FROM rounds JOIN runs USING (run_id) WHERE batch_size = 2 ORDER BY ALL"


def export(store: Store, target: str, folder: Path) -> list[dict[str, Any]]:
    return export_any(store, target, folder, OFFICIAL)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    planned = plan(tmp_path_factory.mktemp("official"), **INDEPENDENT)
    all_stages(planned)
    return Store(planned.store)


@pytest.fixture(scope="module")
def cache(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets as official MEMIT caches them."""
    folder = tmp_path_factory.mktemp("kv") / "kv"
    (row,) = export(store, "targets", folder)
    assert row["clamp"] == 4 and row["facts"] == 4 and row["layer"] == 1
    assert row["cache_template"] == str(folder / "factworld-tiny_MEMIT" / "factworld_layer_{}_clamp_{}_case_{}.npz")
    return folder / "factworld-tiny_MEMIT"


def with_targets(folder: Path, targets: Path, **changes: Any) -> dict[str, Any]:
    return INDEPENDENT | {"editors": [MEMIT | {"targets": str(targets)}], "batch_sizes": [2]} | changes


def test_moments_stand_where_layer_stats_looks_for_them(store: Store, tmp_path: Path) -> None:
    rows = export(store, "moments", tmp_path / "stats")
    assert sorted(row["layer"] for row in rows) == [0, 1]
    for row in rows:
        # As official code puts the name together, from its hyper-parameters and the model's name.
        name = f"model.layers.{row['layer']}.mlp.down_proj_float32_mom2_{row['mom2_n_samples']}.npz"
        assert row["file"] == str(tmp_path / "stats" / "factworld-tiny" / f"{row['mom2_dataset']}_stats" / name)
        with np.load(row["file"]) as content:
            assert content["sample_size"] == row["mom2_n_samples"] == 150
            assert content["mom2.count"] == row["tokens"] and content["mom2.mom2"].ndim == 2


def test_contexts_are_lists_of_texts(store: Store, tmp_path: Path) -> None:
    (first, second) = export(store, "contexts", tmp_path / "contexts")
    assert first["file"] == second["file"] and (tmp_path / "contexts" / first["file"]).is_file()


def test_targets_go_out_and_come_back_to_the_same_updates(store: Store, cache: Path, tmp_path: Path) -> None:
    assert len(list(cache.glob("*_layer_1_*_case_*.npz"))) == 4
    planned = plan(tmp_path, **with_targets(tmp_path, cache))
    session = all_stages(planned)
    assert not session.failed
    again = Store(planned.store)
    assert edited(planned).run_id not in store.run_ids() and edited(planned).trajectory.targets is not None
    before, after = (query(each, ROUNDS).to_pylist() for each in (store, again))
    assert len(before) == len(after) == 4
    for one, two in zip(before, after, strict=True):
        assert (two["round"], two["parameter"]) == (one["round"], one["parameter"])
        assert two["update_norm"] == pytest.approx(one["update_norm"], rel=1e-5)
    searched = query(again, "SELECT DISTINCT n_steps, target_loss FROM edits").to_pylist()
    assert [row["n_steps"] for row in searched] == [0], "nothing was searched"


def test_one_file_with_an_array_for_each_fact(cache: Path, tmp_path: Path) -> None:
    arrays = {}
    for file in cache.glob("*.npz"):
        with np.load(file) as content:
            arrays[file.stem.partition("_case_")[2]] = content["v_star"]
    np.savez(tmp_path / "all.npz", **arrays)
    one, other = (
        plan(tmp_path / name, **with_targets(tmp_path, path))
        for name, path in (("a", tmp_path / "all.npz"), ("b", cache))
    )
    assert edited(one).run_id == edited(other).run_id
    arrays[sorted(arrays)[0]] = arrays[sorted(arrays)[0]] + 1
    np.savez(tmp_path / "all.npz", **arrays)
    assert edited(plan(tmp_path / "c", **with_targets(tmp_path, tmp_path / "all.npz"))).run_id != edited(one).run_id


def test_targets_that_cannot_be_taken(cache: Path, tmp_path: Path) -> None:
    def check_refused(match: str, targets: Path = cache, **changes: Any) -> None:
        with pytest.raises(SpecError, match=match):
            plan(tmp_path, **with_targets(tmp_path, targets, **changes))

    check_refused(r"has none at layer 1 of 2 of 6 facts, the first '", facts={"name": "factworld", "size": 6})
    check_refused(r"holds no target at layer 2 of any of the", layers=[[0, 2]])
    check_refused(r"cannot be read .*expected a folder of", tmp_path / "none.npz")
    check_refused(
        r"rome searches for no target at a block's output",
        editors=[{"name": "rome", "layers": [1], "batch_sizes": [1], "targets": str(cache)}],
    )
    wide = tmp_path / "wide"
    wide.mkdir()
    for file in cache.glob("*.npz"):
        np.savez(wide / file.name, v_star=np.full(7, np.nan, dtype=np.float32))
    check_refused(r"is float32 \[7\] with NaN or infinity; expected finite numbers of shape \[", wide)
    for file in list(wide.glob("*.npz")):
        (wide / file.name.replace("clamp_4", "clamp_1")).write_bytes(file.read_bytes())
    check_refused(r"holds several files for case .* of layer 1", wide)


def test_given_targets_are_a_setting_of_their_own_and_go_alone(cache: Path, tmp_path: Path) -> None:
    """In step with others, a run would take their targets, or they its own."""
    own = MEMIT | {"targets": str(cache)}
    both = INDEPENDENT | {"editors": [MEMIT, own], "mode": "sequential", "batch_sizes": [2]}
    planned = plan(tmp_path / "step", **both, compute={"chains_in_step": 2})
    assert not any("in step" in note for note in forecast(planned)[1])
    all_stages(planned)
    store = Store(planned.store)
    rows = query(store, "SELECT setting, given_targets FROM run_setting ORDER BY given_targets NULLS FIRST").to_pylist()
    assert len({row["setting"] for row in rows}) == 2 and rows[0]["given_targets"] is None and rows[1]["given_targets"]
    differ = query(store, "SELECT DISTINCT differs_in FROM comparisons").to_pylist()
    assert [row["differs_in"] for row in differ] == [["targets"]]
    steps = query(
        store,
        "SELECT given_targets IS NULL AS searched, max(n_steps) AS n FROM edits JOIN run_setting USING (run_id) GROUP BY 1",
    )
    assert {row["searched"]: row["n"] > 0 for row in steps.to_pylist()} == {True: True, False: False}


def test_each_search_has_its_own_folder(tmp_path: Path) -> None:
    """Whose facts overlap: one in another order, with another one first."""
    rows = [
        {"prompt": "{} is the capital of", "subject": f"{name}ia", "target_new": " France", "fact_id": name}
        for name in ("a/b", "a_b", "c%2Fd")
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "order.json").write_text(json.dumps(["a_b", "a/b", "c%2Fd"]))
    for lr, facts in (
        (0.5, {"path": str(tmp_path / "own.jsonl")}),
        (0.05, {"path": str(tmp_path / "own.jsonl"), "order": str(tmp_path / "order.json")}),
    ):
        planned = plan(
            tmp_path, **INDEPENDENT | {"facts": facts, "editors": [MEMIT | {"lr": lr}], "batch_sizes": [1, 3]}
        )
        all_stages(planned)
    written = export(Store(planned.store), "targets", tmp_path / "kv")
    folders = {Path(row["cache_template"]).parent for row in written}
    assert len(folders) == 2 and [row["facts"] for row in written] == [3, 3]
    content = [
        {file.name: np.load(file)["v_star"].tobytes() for file in folder.glob("*.npz")} for folder in sorted(folders)
    ]
    assert [len(each) for each in content] == [3, 3] and set(content[0]) == set(content[1])
    assert all(content[0][name] != content[1][name] for name in content[0])
    again = plan(
        tmp_path,
        **INDEPENDENT
        | {
            "facts": {"path": str(tmp_path / "own.jsonl")},
            "editors": [MEMIT | {"targets": str(min(folders))}],
            "batch_sizes": [3],
        },
    )
    assert edited(again).trajectory.targets is not None, "every id has a file"


def test_a_store_without_targets_says_so(tmp_path: Path) -> None:
    planned = plan(tmp_path, **INDEPENDENT | {"editors": ["ft_c"], "batch_sizes": [1]})
    all_stages(planned)
    with pytest.raises(InputError, match=r"holds no targets of MEMIT, EMMET or AlphaEdit; kept are"):
        export(Store(planned.store), "targets", tmp_path / "kv")
    assert not (tmp_path / "kv").exists()
