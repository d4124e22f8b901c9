"""A run's seed is the one seed of all that is random in its editor, and nothing else counts as a repetition."""

from pathlib import Path
from typing import Any

import pytest

from flows.experiment_file import load_experiment
from tests.flows.support import plan_of, refusal, write

MALMEN = {"editors": ["malmen"], "mode": "independent", "layers": [[4, 5]], "training": {"validation": 8}}


def runs_of(tmp_path: Path, **changes: Any) -> list[Any]:
    planned = plan_of(load_experiment(write(tmp_path, **changes)))
    return [run for run in planned.runs if not run.is_unedited]


def test_each_seed_trains_a_network_of_its_own(tmp_path: Path) -> None:
    planned = plan_of(load_experiment(write(tmp_path, seeds=[0, 1, 2], **MALMEN)))
    assert len({run.run_id for run in planned.runs if not run.is_unedited}) == 3
    assert len({training.run_id for training in planned.trainings}) == 3


def test_seed_0_draws_what_was_drawn_before_seeds_were_one(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, **MALMEN)
    assert run.hparams["training_seed"] == 0 and run.trajectory.seed == 0
    assert run.trajectory.network is not None and run.trajectory.network["hparams"]["training_seed"] == 0


@pytest.mark.parametrize(
    ("editor", "name"),
    [({"name": "grace", "initial": "cold", "batch_sizes": [1]}, "value_seed"), ("random_direction", "direction_seed")],
)
def test_a_seed_reaches_whatever_is_random(tmp_path: Path, editor: Any, name: str) -> None:
    runs = runs_of(tmp_path, editors=[editor], seeds=[3, 4])
    assert [run.hparams[name] for run in runs] == [3, 4]


def test_context_prefixes_are_drawn_anew(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seeds=[0, 1])
    assert [run.trajectory.contexts["seed"] for run in runs] == [0, 1]


@pytest.mark.parametrize(
    ("editor", "named"),
    [("ft_c", "nothing in ft_c is random"), ({"name": "grace", "batch_sizes": [1]}, "nothing in grace is random"),
     ({"name": "memit", "contexts": 0}, "nothing in memit is random")],
)  # fmt: skip
def test_seeds_of_what_is_not_random_are_refused(tmp_path: Path, editor: Any, named: str) -> None:
    message = refusal(write(tmp_path, editors=["memit", editor], seeds=[0, 1, 2]))
    assert named in message and "give this editor seeds: [0]" in message and "1 error\n" in message


def test_an_editor_may_have_seeds_of_its_own(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, editors=["ft_c", {"name": "memit", "seeds": [0, 1]}])
    assert [(run.editor, run.trajectory.seed) for run in runs] == [("ft_c", 0), ("memit", 0), ("memit", 1)]


def test_seeds_of_single_parts_are_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, editors=[{"name": "random_direction", "direction_seed": 7}]))
    assert "direction_seed is the run's seed; write seeds: [7] beside the editor's name" in message
