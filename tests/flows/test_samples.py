"""Samples of facts: seeded, or with no fact in two of them."""

import json
from pathlib import Path
from typing import Any

from editing.factworld.world import World
from flows.experiment_file import load_experiment
from flows.inputs import read_inputs
from tests.flows.support import plan_of, refusal, write


def edited(tmp_path: Path, **facts: Any) -> list[tuple[int, ...]]:
    size = facts.get("size", 8)
    inputs = read_inputs(load_experiment(write(tmp_path, facts={"name": "factworld", "size": size, **facts})))
    return [order.positions[:size] for order in inputs.orders]


def test_disjoint_samples_share_no_fact(tmp_path: Path) -> None:
    samples = edited(tmp_path, size=60, samples=3, disjoint=True)
    assert len({position for sample in samples for position in sample}) == 180
    usual = edited(tmp_path, size=60, samples=3)
    assert len({position for sample in usual for position in sample}) < 180, "by themselves they overlap"
    assert samples[0] == usual[0]


def test_sample_0_is_the_same_run_and_the_others_are_their_own(tmp_path: Path) -> None:
    def ids(**facts: Any) -> list[str]:
        planned = plan_of(
            load_experiment(write(tmp_path, facts={"name": "factworld", "size": 8, "samples": 2, **facts}))
        )
        return [run.run_id for run in planned.runs if not run.is_unedited]

    usual, disjoint = ids(), ids(disjoint=True)
    assert usual[0] == disjoint[0] and usual[1] != disjoint[1]


def test_too_few_facts_are_said_with_how_many_are_needed(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, facts={"name": "factworld", "size": 100000, "samples": 2, "disjoint": True}))
    assert "2 disjoint samples of 100000 facts need 200000; the data set has" in message


def test_lists_of_ones_own_that_overlap_are_refused(tmp_path: Path) -> None:
    names = [request.request_id for request in World().requests()[:20]]
    (tmp_path / "order.json").write_text(json.dumps([names[:8], names[7:15]]))
    facts = {"name": "factworld", "size": 8, "samples": 2, "disjoint": True, "order": str(tmp_path / "order.json")}
    message = refusal(write(tmp_path, facts=facts))
    assert f"fact {names[7]!r} is in the samples 0 and 1; expected none in two of them" in message
