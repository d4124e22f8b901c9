"""What figures draw: each setting as a line of its own, named by what tells it apart; looked at in the charts' own data."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.charts import chart, in_common_colours
from tasks.reports.labels import labelled
from tasks.reports.panels import PANELS, panel
from tasks.reports.pictures import draw, statement
from tests.storage.test_settings import always, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def drawn(store: Store, name: str, **options: Any) -> list[dict[str, Any]]:
    """Return the data of a figure's chart."""
    wanted = panel(name)
    assert wanted is not None
    found = chart(wanted, query(store, statement(wanted, **options)).to_pylist())
    return [] if found is None else found["data"]["values"]


def joint(store: Store, run_id: str, m: int, right: int, **changes: Any) -> None:
    """One joint edit of m facts, of which some are right."""
    facts = range(m)
    run(
        store,
        run_id,
        lambda fact, kind: fact < right,
        facts=facts,
        editor="malmen",
        batch_size=m,
        mode="independent",
        **changes,
    )


def test_an_editor_and_its_ablation_are_two_lines(store: Store) -> None:
    for m in (4, 8):
        joint(store, f"malmen-{m}", m, m)
        joint(store, f"ablation-{m}", m, m // 4, preset="sum-of-shifts", spec={"hparams": {"join": "sum"}})
    rows = [row for row in drawn(store, "joint-edits") if row["part"] == "ES"]
    lines = {name: [row["mean"] for row in rows if row["series"] == name] for name in {row["series"] for row in rows}}
    assert lines == {"malmen": [1, 1], "malmen sum-of-shifts": [0.25, 0.25]}


def lines_of(names: list[str]) -> dict[str, Any]:
    """Return the chart of a curve for each name."""
    wanted = panel("forgetting")
    assert wanted is not None
    rows = [
        {
            "setting": name,
            "editor": name,
            "batch_size": 1,
            "edits": edits,
            "mean": 0.5,
            "name": "",
            "metric": "forgotten",
        }
        for name in names
        for edits in (1, 2)
    ]
    found = chart(wanted, rows)
    assert found is not None
    return found


def colours(chart: dict[str, Any]) -> dict[str, str]:
    scale = chart["spec"]["encoding"]["color"]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=False))


def test_one_name_has_one_colour_on_a_page() -> None:
    many = [f"editor{number:02d}" for number in range(12)]
    made = [lines_of(names) for names in (["memit", "rome"], ["rome"], many, ["memit", "rome", "zeta"])]
    assert colours(made[0])["rome b1"] != colours(made[1])["rome b1"]
    page = in_common_colours(dict(enumerate(made)))
    assert len({colours(page[number])["rome b1"] for number in (0, 1, 3)}) == 1
    assert all(len(set(colours(each).values())) == len(colours(each)) for each in page.values())
    again = lines_of([*many, "memit", "rome", "zeta"])
    assert colours(in_common_colours({0: again})[0]) == colours(again), "more names than colours: as it was"


def search(store: Store, run_id: str, editor: str, right: int) -> None:
    rows = [
        {"model": "m", "editor": editor, "protocol": "corrected", "layer": layer, "fact_id": f"f{fact}",
         "probe_id": f"f{fact}/{kind}", "kind": kind, "nll_new": 1.0 if fact < right else 4.0, "n_new": 2, "nll_true": 2.0,
         "n_true": 2}
        for layer in range(3) for fact in range(4) for kind in ("rewrite", "paraphrase", "neighborhood")
    ]  # fmt: skip
    store.commit(run_id, "layers", {"layer_scores": rows}, CommitInfo(kind="search"))


def test_two_searches_are_two_pictures(store: Store) -> None:
    search(store, "search-rome", "rome", 4)
    search(store, "search-memit", "memit", 2)
    rows = [row for row in drawn(store, "layers") if row["metric"] == "efficacy"]
    seen = {part: [row["mean"] for row in rows if row["part"] == part] for part in {row["part"] for row in rows}}
    assert seen == {"m, rome, search rome": [1, 1, 1], "m, memit, search emit": [0.5, 0.5, 0.5]}


def test_models_modes_presets_and_samples_are_told_apart(store: Store) -> None:
    for model in ("small", "large"):
        for preset, lr in ((None, 0.1), ("paper", 0.5)):
            for sample in range(3):
                name = f"{model}-{preset}-{sample}"
                facts = range(10 * sample, 10 * sample + 10)
                run(store, name, always, facts=facts, sample=sample, model=model, model_digest=model, preset=preset,
                    spec={"hparams": {"lr": lr}})  # fmt: skip
    run(store, "independent", always, facts=range(10), mode="independent", model="small", model_digest="small")
    rows = [row for row in drawn(store, "editing") if row["part"] == "efficacy" and row["name"] == "window 50"]
    lines = {(row["group"], row["label"]) for row in rows}
    assert lines == {
        ("small · sequential", "memit b1"), ("small · sequential", "memit b1 paper"), ("small · independent", "memit b1"),
        ("large · sequential", "memit b1"), ("large · sequential", "memit b1 paper"),
    }  # fmt: skip
    assert len(rows) == 5 * 10 and {row["n_runs"] for row in rows} == {1, 3}, "samples are one line, with a band"
    apart = [
        row for row in drawn(store, "editing", apart=True) if row["part"] == "efficacy" and row["name"] == "window 50"
    ]
    assert len({(row["group"], row["label"]) for row in apart}) == 13
    assert ("large · sequential", "memit b1 paper sample 2") in {(row["group"], row["label"]) for row in apart}


def test_a_grid_is_spread_over_rows_of_pictures() -> None:
    rows = [
        {"setting": f"{editor}{size}{layer}", "editor": editor, "batch_size": size, "layers": [layer], "model": "m",
         "facts": "f", "dtype": "float32", "mode": "sequential"}
        for editor in ("rome", "emmet") for size in (1, 5, 50) for layer in (0, 1, 2)
    ]  # fmt: skip
    found = labelled(rows)
    assert {row["group"] for row in found} == {"layer 0", "layer 1", "layer 2"}
    assert {row["label"] for row in found} == {
        f"{editor} b{size}" for editor in ("rome", "emmet") for size in (1, 5, 50)
    }
    few = labelled(rows[:3])
    assert {row["group"] for row in few} == {""} and {row["label"] for row in few} == {
        f"rome b1 layer {n}" for n in range(3)
    }


def test_a_cell_of_a_heat_map_holds_one_setting() -> None:
    """Layers and batch sizes are axes; editors, presets and samples are pictures of their own."""
    rows = [
        {"setting": f"{preset}{size}{layer}", "editor": "rome", "preset": preset, "batch_size": size, "layers": [layer],
         "model": "m", "facts": "f", "dtype": "float32", "mode": "sequential"}
        for preset in (None, "paper") for size in (1, 5) for layer in (0, 1)
    ]  # fmt: skip
    found = labelled(rows, spread=False, on_axes=("layers", "batch_size"))
    cells = [(row["group"], row["editor"], tuple(row["layers"]), row["batch_size"]) for row in found]
    assert len(set(cells)) == len(rows) and {row["group"] for row in found} == {"", "paper"}
    alone = labelled(rows[:4], spread=False, on_axes=("layers", "batch_size"))
    assert {row["group"] for row in alone} == {""}


@pytest.mark.parametrize(("layers", "kinds"), [(12, ["rect", "text"]), (30, ["rect"])])
def test_a_deep_models_heat_map_has_no_numbers_on_top_of_each_other(layers: int, kinds: list[str]) -> None:
    tracing = panel("tracing")
    assert tracing is not None
    rows = [
        {"run_id": "a", "model": "m", "kind": "mlp", "role": role, "layer": layer, "effect": 0.1, "total_effect": 0.2}
        for role in ("before subject", "last token")
        for layer in range(layers)
    ]
    found = chart(tracing, rows)
    assert found is not None and [each["mark"]["type"] for each in found["spec"]["layer"]] == kinds
    assert found["spec"]["encoding"]["x"]["axis"]["labelOverlap"] == "greedy"


def test_every_figure_is_a_chart_of_vega_lite(store: Store, tmp_path: Path) -> None:
    """Each is drawn; none of an empty store is."""
    for each in PANELS:
        assert drawn(store, each.name) == []
    run(store, "a", always, facts=range(10), final=always)
    run(store, "b", always, facts=range(10), final=always, batch_size=5)
    for kind, begins in (("svg", b"<svg"), ("pdf", b"%PDF"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")):
        out = tmp_path / f"figure.{kind}"
        assert "18 rows of batch-size" in draw(str(tmp_path / "store"), "batch-size", out)
        assert out.read_bytes().lstrip().startswith(begins), kind
    page = (tmp_path / "figure.html").read_text()
    assert "https://cdn" not in page, "a page that needs no network"
    draw(str(tmp_path / "store"), "editing", tmp_path / "figure.csv", where="batch_size = 5")
    with (tmp_path / "figure.csv").open() as file:
        assert {row["batch_size"] for row in csv.DictReader(file)} == {"5"}
    draw(str(tmp_path / "store"), "editing", tmp_path / "figure.json")
    assert json.loads((tmp_path / "figure.json").read_text())["$schema"].endswith("v6.json")


@pytest.mark.parametrize(
    ("name", "out", "options", "said"),
    [
        ("editin", "a.svg", {}, r"no figure 'editin'; expected one of \['editing'\]"),
        ("editing", "a.gif", {}, r"expected a file that ends on one of \['.svg'"),
        ("editing", "a.svg", {"where": "batch_size = 7"}, "has nothing to show"),
        ("batch-size", "a.svg", {"apart": True}, "--apart: figure 'batch-size' is no curve"),
        ("editing", "nowhere/a.svg", {}, "expected a file in a directory that is there"),
    ],
)
def test_figures_that_cannot_be_drawn_say_why(
    store: Store, tmp_path: Path, name: str, out: str, options: dict[str, Any], said: str
) -> None:
    run(store, "a", always, facts=range(10))
    with pytest.raises(InputError, match=said):
        draw(str(tmp_path / "store"), name, tmp_path / out, **options)
