"""Second moments in shards: the same whatever the shards, after a kill, and when stopped nearly the same."""

import json
import math
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from editing import load
from editing.errors import MomentError
from editing.measure.convergence import update_change
from editing.measure.moments import MomentAccumulator, accumulate_moments, layers_that_fit
from editing.methods.locate import read_keys
from flows.forecast import forecast
from storage.artifacts import artifact_recipes, drop_artifact, find_artifact
from storage.errors import ArtifactMismatch
from storage.sql import query
from storage.store import Store
from tasks.data.facts import world_for
from tasks.reports.report import write_report
from tasks.units.moments import MOMENTS, SUMS, MomentsJob, layer_recipe
from tasks.workers.worker import Worker
from tests.editing.tiny import relative
from tests.tasks.support import plan, prepare

LAYERS = (0, 1)


def job(folder: Path, **second_moment: Any) -> tuple[Store, MomentsJob]:
    folder.mkdir(exist_ok=True)
    planned = plan(folder, second_moment=second_moment)
    (found,) = planned.moments
    return Store(planned.store), found


def collected(folder: Path, **second_moment: Any) -> tuple[Store, MomentsJob, dict[int, Tensor]]:
    store, wanted = job(folder, **second_moment)
    worker = Worker(str(store.location))
    while units := wanted.next_units(store):
        worker.do(units[-1])  # in another order than the corpus's
    return store, wanted, moments(store, wanted)


def moments(store: Store, wanted: MomentsJob) -> dict[int, Tensor]:
    found = {layer: find_artifact(store, MOMENTS, layer_recipe(wanted.recipe, layer)) for layer in wanted.layers}
    return {layer: load_file(a.path("moment.safetensors"))["moment"] for layer, a in found.items() if a is not None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Tensor]:
    _, wanted, found = collected(tmp_path_factory.mktemp("whole") / "one", n_texts=384)
    assert [unit.kind for unit in wanted.units()] == ["moments"], "one shard needs no merge"
    return found


def test_three_shards_are_one(whole: dict[int, Tensor], tmp_path: Path) -> None:
    store, wanted, found = collected(tmp_path, n_texts=384, shard_texts=128)
    assert [unit.kind for unit in wanted.units()] == ["moment_shard"] * 3 + ["moments"]
    assert set(found) == set(LAYERS)
    for layer in LAYERS:
        assert relative(found[layer], whole[layer]) <= 1e-12
    assert not artifact_recipes(store, SUMS), "shards are dropped when they are merged"
    assert wanted.next_units(store) == []


def test_a_plan_says_what_the_shards_will_take(tmp_path: Path) -> None:
    planned = plan(tmp_path, second_moment={"n_texts": 384, "shard_texts": 128})
    notes = " ".join(forecast(planned)[1])
    assert (
        "second moments of 2 layers: 0.4 MB in the store, up to 0.7 MB more until their 3 shards are merged" in notes
    ), "160 inputs, float64; of three sums the lower halves"
    prepare(planned, Worker(planned.store))
    assert "second moments of" not in " ".join(forecast(planned)[1])


def test_killed_in_a_shard_and_resumed(whole: dict[int, Tensor], tmp_path: Path) -> None:
    store, wanted = job(tmp_path, n_texts=384, shard_texts=64)
    code = (
        "import pickle, sys\nfrom tasks.workers.worker import Worker\nfrom storage.store import Store\n"
        "root, wanted = pickle.load(sys.stdin.buffer)\nworker, store = Worker(root), Store(root)\n"
        "while units := wanted.next_units(store):\n    worker.do(units[0])\n    print(units[0].unit_id, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(pickle.dumps((str(store.location), wanted)))
    child.stdin.close()
    for _ in range(2):
        assert child.stdout.readline(), "it ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = {unit.unit_id for unit in wanted.units() if store.is_committed(*unit.key)}
    assert 2 <= len(done) < 6 and len(wanted.next_units(store)) == 6 - len(done), "only the others are left"
    worker = Worker(str(store.location))
    while units := wanted.next_units(store):
        worker.do(units[0])
    found = moments(store, wanted)
    for layer in LAYERS:
        assert relative(found[layer], whole[layer]) <= 1e-12


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    store, wanted = job(tmp_path, n_texts=128, shard_texts=64)
    worker = Worker(str(store.location))
    for unit in wanted.next_units(store):
        worker.do(unit)
    path = next((Path(store.location) / "artifacts" / SUMS).glob("*/*.sums.safetensors"))
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(ArtifactMismatch, match="is not what was stored"):
        worker.do(wanted.next_units(store)[0])


def stopped(folder: Path, *, change: float, n_texts: int, first_texts: int) -> tuple[float, float, int, int]:
    """Return the change that a stop reported, how far its updates are from the whole corpus's, and the tokens of both."""
    store, _, short = collected(
        folder / "short", n_texts=n_texts, first_texts=first_texts, shard_texts=4096, stop_change=change
    )
    whole_store, _, long = collected(folder / "long", n_texts=n_texts, shard_texts=64 * 2500)
    last = query(store.location, "SELECT change, n_tokens FROM moment_curve WHERE is_last").to_pylist()
    (read,) = query(whole_store.location, "SELECT DISTINCT n_tokens FROM second_moments").to_pylist()
    assert len(last) == len(LAYERS)
    lm, facts = load("factworld-tiny"), world_for("factworld-tiny").requests()
    keys = read_keys(lm, facts[:40], ("",), LAYERS, "flat")
    away = max(update_change(short[layer], long[layer], keys[layer].bare) for layer in LAYERS)
    return max(row["change"] for row in last), away, max(row["n_tokens"] for row in last), read["n_tokens"]


@pytest.mark.slow
def test_it_stops_when_the_updates_stand_still(tmp_path: Path) -> None:
    change, away, used, of = stopped(tmp_path, change=0.08, n_texts=8000, first_texts=256)
    assert used < of / 2, "it stopped early"
    assert 0.01 < change <= 0.08
    assert away <= 0.08
    _, _, few = collected(tmp_path / "few", n_texts=256)
    lm, facts = load("factworld-tiny"), world_for("factworld-tiny").requests()
    keys = read_keys(lm, facts[:40], ("",), LAYERS, "flat")
    assert update_change(few[1], moments_of(tmp_path / "long")[1], keys[1].bare) > 0.08, "the first wave was not enough"


def moments_of(folder: Path) -> dict[int, Tensor]:
    store = Store(str(folder / "store"))
    recipes = {int(recipe["layer"]): recipe for recipe in artifact_recipes(store, MOMENTS)}
    found = {layer: find_artifact(store, MOMENTS, recipe) for layer, recipe in recipes.items()}
    return {layer: load_file(a.path("moment.safetensors"))["moment"] for layer, a in found.items() if a is not None}


@pytest.mark.minutes
def test_a_stop_at_one_percent_is_within_one_percent_of_the_whole_corpus(tmp_path: Path) -> None:
    change, away, used, of = stopped(tmp_path, change=0.01, n_texts=160_000, first_texts=4992)
    assert used < of
    assert change <= 0.01
    assert away <= 0.01


@pytest.mark.slow
def test_a_layer_stops_by_itself(tmp_path: Path) -> None:
    """What its second moment is must not depend on which other layers an experiment asks for."""
    settings: dict[str, Any] = {"n_texts": 4096, "first_texts": 64, "shard_texts": 64, "stop_change": 0.26}
    store, _, both = collected(tmp_path / "both", **settings)
    (tmp_path / "one").mkdir()
    planned = plan(tmp_path / "one", second_moment=settings, layers=[[1]])
    other, (wanted,) = Store(planned.store), planned.moments
    worker = Worker(planned.store)
    while units := wanted.next_units(other):
        worker.do(units[0])
    sql = "SELECT layer, n_texts, n_tokens, change, is_last FROM moment_curve ORDER BY ALL"
    waves = query(store.location, sql).to_pylist()
    assert [row for row in waves if row["layer"] == 1] == query(other.location, sql).to_pylist()
    for layer in LAYERS:
        mine = [row for row in waves if row["layer"] == layer]
        assert [row["n_texts"] for row in mine] == [64 * 2**wave for wave in range(1, len(mine) + 1)]
        assert (
            [row["is_last"] for row in mine]
            == [row["change"] <= 0.26 for row in mine]
            == [*[False] * (len(mine) - 1), True]
        )
    page = Path(write_report(store).location).read_text()
    assert "Second moments: change of updates" in page and all(
        f"<td>{row['n_tokens']}</td>" in page for row in waves if row["is_last"]
    )
    assert wanted.layers == (1,) and torch.equal(moments(other, wanted)[1], both[1])
    assert artifact_recipes(other, MOMENTS)[0] in artifact_recipes(store, MOMENTS)
    cards = [
        json.loads(path.read_text()) for path in Path(store.location).glob("artifacts/second_moments/*/*.moment.json")
    ]
    assert len({card["n_tokens"] for card in cards}) == 2, "the layers stopped after different texts"
    assert not artifact_recipes(store, SUMS)


def test_shards_dropped_by_another_job_are_collected_again(whole: dict[int, Tensor], tmp_path: Path) -> None:
    store, wanted = job(tmp_path, n_texts=384, shard_texts=128)
    worker = Worker(str(store.location))
    for unit in wanted.next_units(store):
        worker.do(unit)
    for recipe in artifact_recipes(store, SUMS)[:3]:
        drop_artifact(store, SUMS, recipe)
    (merge,) = wanted.next_units(store)
    assert worker.do(merge) == "done"
    for layer in LAYERS:
        assert relative(moments(store, wanted)[layer], whole[layer]) <= 1e-12


def test_texts_without_tokens_add_nothing() -> None:
    lm = load("factworld-tiny")
    empty = accumulate_moments(lm, [], [1])
    total = MomentAccumulator.of_state(1, empty.state(1))
    full = accumulate_moments(lm, world_for("factworld-tiny").corpus(8), [1])
    total.merge(MomentAccumulator.of_state(1, full.state(1)))
    assert torch.equal(total.result()[1].matrix, full.result()[1].matrix)
    with pytest.raises(MomentError, match="no tokens at all"):
        MomentAccumulator.of_state(1, empty.state(1)).result()


def test_equal_keys_do_not_hold_up_a_stop() -> None:
    keys = torch.randn(3, 8, dtype=torch.float64)
    before, after = torch.eye(8, dtype=torch.float64), torch.diag(torch.linspace(1, 2, 8, dtype=torch.float64))
    expected = update_change(before, after, keys)
    assert 0 < expected < math.inf
    assert update_change(before, after, torch.cat([keys, keys[:1] * (1 + 1e-9)])) == expected


def test_the_change_of_a_singular_moment_is_infinite() -> None:
    keys, one = torch.randn(3, 8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    assert update_change(torch.zeros(8, 8), one, keys) == float("inf")
    assert update_change(one, one, keys) == 0
    assert update_change(one, torch.diag(torch.arange(1.0, 9.0)), keys) > 0.1


def test_layers_are_grouped_by_the_memory_of_their_sums() -> None:
    lm = load("factworld-tiny")
    size = 8 * lm.weight(0).shape[1] ** 2
    assert layers_that_fit(lm, [0, 1, 2], 2 * size) == [[0, 1], [2]]
    assert layers_that_fit(lm, [0, 1, 2], 3 * size) == [[0, 1, 2]]
    assert layers_that_fit(lm, [0, 1, 2], 1) == [[0], [1], [2]], "one at least"
