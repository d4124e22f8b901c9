"""How long a hyper-network is trained, and on what."""

from pathlib import Path
from typing import Any

import pytest

from flows.experiment_file import load_experiment
from tasks.data.facts import n_world_training_facts
from tests.flows.support import plan_of, write


def recipes(tmp_path: Path, **hparams: Any) -> list[Any]:
    editors = [{"name": "malmen", **hparams}]
    changes = {"editors": editors, "mode": "independent", "layers": [[4, 5]], "training": {"validation": 8}}
    return [job.recipe for job in plan_of(load_experiment(write(tmp_path, **changes))).trainings]


@pytest.mark.parametrize("edits", [4, 32])
def test_no_steps_are_one_epoch_of_the_training_facts(tmp_path: Path, edits: int) -> None:
    (recipe,) = recipes(tmp_path, steps=0, edits=edits)
    n_facts = n_world_training_facts("factworld-tiny", unknown=False) - 8
    assert recipe["hparams"]["steps"] == n_facts // edits > 1
    assert recipes(tmp_path, steps=n_facts // edits, edits=edits) == [recipe], "one network, however it was asked for"
