"""What a run is named by, and how its description is kept."""

import json
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest

from storage.digests import digest_of
from tasks.specs.identity import called, identity_of, outside
from tasks.specs.run import FactsRef, ModelRef, RunSpec, Trajectory, baseline_of
from tasks.specs.stored_run import of_json, to_json
from tests.tasks.support import edited, plan


@pytest.fixture
def run(tmp_path: Path) -> RunSpec:
    editors = [{"name": "malmen", "steps": 4, "rank": 4}]
    score = {
        "every_edits": [4, 8],
        "generation": {"prompts": 2, "tokens": 8},
        "benchmarks": ["sentiment"],
        "examples": 4,
    }
    return edited(plan(tmp_path, editors=editors, score=score))


def test_a_new_field_at_its_default_leaves_old_ids_and_at_another_value_it_makes_new_ones(run: RunSpec) -> None:
    longer = make_dataclass("Longer", [("warmth", int, 0)], bases=(Trajectory,), frozen=True, kw_only=True)
    given = {each.name: getattr(run.trajectory, each.name) for each in fields(Trajectory)}
    assert digest_of(longer(**given).identity) == digest_of(run.trajectory.identity)
    assert longer(**given, warmth=1).identity == run.trajectory.identity | {"warmth": 1}


def test_every_field_that_is_not_marked_is_in_the_identity(run: RunSpec) -> None:
    """The marks, and nothing else, say what two runs may differ in and be one run."""
    marked = {
        kind.__name__: {each.name for each in fields(kind) if each.metadata.get("outside")}
        for kind in (ModelRef, FactsRef, Trajectory)
    }
    assert marked == {
        "ModelRef": {"name", "folder", "revision", "n_layers", "family", "text_start", "adapter", "file", "source"},
        "FactsRef": {"name", "run_id", "size", "order"},
        "Trajectory": set(),
    }
    assert len(run.trajectory.identity) == 3 + 3 + 10, "of the model, of the facts, and its own"


def test_what_is_scored_and_how_it_is_executed_are_no_part_of_the_identity(run: RunSpec) -> None:
    other = run.changed(every_edits=1, retention="none", text_tokens=3, commit_every=1, in_step=("a",), experiment="x")
    assert other.run_id == run.run_id and other != run
    for change in ({"batch_size": 1}, {"layers": (0,)}, {"mode": "independent"}, {"seed": 7}, {"hparams": {}}):
        assert run.changed(**change).run_id != run.run_id
    with pytest.raises(TypeError, match="warmth"):
        run.changed(warmth=1)


def test_parts_of_an_identity_are_spread_renamed_and_derived() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        place: str = outside()
        digest: str = called("model")
        talks: bool = called("talk", lambda found: "yes" if found else "no", default=False)

        @property
        def identity(self) -> dict[str, Any]:
            return identity_of(self)

    @dataclass(frozen=True, kw_only=True)
    class Outer:
        inner: Inner
        layers: tuple[int, ...]
        later: int = 0

    assert identity_of(Outer(inner=Inner(place="/", digest="d"), layers=(1, 2))) == {
        "model": "d",
        "talk": "no",
        "layers": [1, 2],
    }


def test_a_description_is_read_as_it_was_written(run: RunSpec) -> None:
    assert of_json(to_json(run)) == run and of_json(to_json(run)).run_id == run.run_id
    baseline = baseline_of(run)
    assert of_json(to_json(baseline)) == baseline and baseline.is_unedited and baseline.n_rounds == 0


def test_a_description_of_the_first_version_is_read(run: RunSpec) -> None:
    found = json.loads(to_json(run))
    scores = found.pop("scores")
    found |= {"generation": scores["generation"], "perplexity": None}
    del found["spec_version"]
    assert of_json(json.dumps(found)) == run
