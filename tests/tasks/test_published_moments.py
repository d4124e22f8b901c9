"""Second moments go out as ROME's files and come back with declared provenance, to the same edits."""

import json
from pathlib import Path

import pytest

from flows.spec_values import SpecError
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.units.work.interchange import export_moments
from tasks.workers.worker import Worker
from tests.tasks.support import plan, run_all


@pytest.mark.slow
def test_exported_moments_are_imported_to_the_same_run(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    score = {"every_edits": 0}
    store, _ = run_all(one, score=score)
    rows = export_moments(store, tmp_path / "npz")
    files = {row["layer"]: row["file"] for row in rows}
    assert sorted(files) == [0, 1]
    assert json.loads(Path(files[0]).with_suffix(".json").read_text())["layer"] == 0
    moments = {"files": files, "provenance": "this project, factworld-tiny, 150 texts"}
    again, planned = run_all(two, second_moment=moments, score=score)
    run = planned.runs[-1]
    assert run.run_id not in store.run_ids(), "another provenance, another run"
    sql = "SELECT fact_id, parameter, q FROM edit_updates ORDER BY ALL"
    before, after = query(store.location, sql).to_pylist(), query(again.location, sql).to_pylist()
    assert len(before) == len(after) > 0
    for row, other in zip(before, after, strict=True):
        assert other["fact_id"] == row["fact_id"]
        assert other["q"] == pytest.approx(row["q"], rel=1e-6)
    spec = json.loads(query(again.location, "SELECT spec FROM runs WHERE editor = 'memit'").to_pylist()[0]["spec"])
    assert spec["moments_recipe"]["texts"]["provenance"] == moments["provenance"]
    assert Store(again.location).run_ids()


def test_published_moments_need_provenance_and_every_layer(tmp_path: Path) -> None:
    missing = {"files": {0: str(tmp_path / "none.npz")}}
    with pytest.raises(SpecError, match=r"no file .*none.npz\n(.*\n)*?.*provenance is missing"):
        plan(tmp_path, second_moment=missing)
    (tmp_path / "one.npz").write_bytes(b"")
    with pytest.raises(SpecError, match=r"found layers \[0\], the editors also need \[1\]"):
        plan(tmp_path, second_moment={"files": {0: "one.npz"}, "provenance": "x"})


@pytest.mark.parametrize(("by", "needed"), [("search", [1, 3]), ("trace", [0, 1, 3])])
def test_published_moments_of_layers_that_are_still_to_be_found(by: str, needed: list[int], tmp_path: Path) -> None:
    """Any of the candidates may be chosen; an editor that needs no second moment adds none."""
    (tmp_path / "two.npz").write_bytes(b"")
    locate = {"search": {"editor": "ft_c", "edits": 2, "layers": [1, 3]}, "trace": {"facts": 2}}
    editors = [{"name": "rome", "layers": by, "batch_sizes": [1]}, {"name": "ft_c", "layers": [0]}]
    moments = {"files": {2: "two.npz"}, "provenance": "x"}
    with pytest.raises(SpecError) as caught:
        plan(tmp_path, editors=editors, locate=locate, second_moment=moments)
    found = str(caught.value)
    assert f"the editors also need [{', '.join(map(str, needed))}" in found, found


def test_a_model_samples_texts_itself_where_the_facts_have_none(tmp_path: Path) -> None:
    record = {"prompt": "{} works as a", "target_new": {"str": "doctor"}, "target_true": {"str": "baker"}}
    records = [
        {"case_id": i, "requested_rewrite": record | {"subject": f"Person {i}", "relation_id": "P1"}} for i in range(4)
    ]
    (tmp_path / "facts.json").write_text(json.dumps(records))
    facts = {"name": "counterfact", "path": str(tmp_path / "facts.json"), "size": 4}
    planned = plan(tmp_path, facts=facts)
    (job,) = planned.moments
    assert job.recipe["texts"] == {"name": "own", "n_texts": 150, "seed": 0, "tokens": 64, "top_k": 50}
    assert any("texts that the model samples itself" in note for note in planned.notes)
    asked = plan(tmp_path, facts=facts, second_moment={"texts": "self", "n_texts": 150})
    assert asked.moments[0].recipe == job.recipe and not any("samples itself" in note for note in asked.notes)
    with pytest.raises(SpecError, match="found path and texts; expected one"):
        plan(tmp_path, facts=facts, second_moment={"texts": "self", "path": str(tmp_path / "facts.json")})
    assert plan(tmp_path, facts=facts, editors=["ft_c"]).moments == ()


def test_a_file_is_known_by_its_content_not_by_its_path(tmp_path: Path) -> None:
    texts = "\n".join(f"Somebody lives in a house of number {i}." for i in range(40))
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "texts.txt").write_text(texts)
    here, there = (
        plan(tmp_path / name, second_moment={"path": "texts.txt", "n_texts": 20}) for name in ("here", "there")
    )
    assert here.moments[0].files != there.moments[0].files
    assert [run.run_id for run in here.runs] == [run.run_id for run in there.runs]
    (tmp_path / "here" / "texts.txt").write_text(f"{texts}\nAnd one more line that was not planned with.")
    with pytest.raises(InputError, match=r"texts.txt has changed since the experiment was planned"):
        Worker(here.store).do(here.moments[0].merge(0))
    (tmp_path / "here" / "texts.txt").unlink()
    with pytest.raises(InputError, match=r"texts.txt is not there on .*at the same path on every node"):
        Worker(here.store).do(here.moments[0].merge(0))
