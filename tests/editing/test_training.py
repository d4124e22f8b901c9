"""Training of a hyper-network on the tiny bundled model."""

from dataclasses import replace

import pytest
import torch

from editing.factworld.world import World
from editing.hparams import resolve_hparams
from editing.methods.editor import make_editor
from editing.methods.trained import TrainedEditor
from editing.methods.training import Trainer
from editing.model.lm import LanguageModel
from editing.model.loading import load

STEPS = 4


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load("factworld-tiny")


def trainer(lm: LanguageModel, schedule: str, steps: int = STEPS) -> Trainer:
    overrides = {"steps": steps, "meta_schedule": schedule, "tokens": "all"}
    editor = make_editor("malmen", resolve_hparams("malmen", model="factworld-tiny", overrides=overrides))
    assert isinstance(editor, TrainedEditor)
    return Trainer(lm, World().training_requests(variants=1)[:40], editor.training_plan([0], 4), editor.network_shape())


def test_the_linear_schedule_is_a_constant_one_whose_rate_is_set_by_hand(tiny: LanguageModel) -> None:
    falling, by_hand, constant = (trainer(tiny, schedule) for schedule in ("linear", "constant", "constant"))
    rate = by_hand.plan.meta_lr
    for step in range(STEPS):
        left = rate * (1 - step / STEPS)
        by_hand.plan = replace(by_hand.plan, meta_lr=left, lr_lr=left)
        by_hand.step()
    falling.train(STEPS)
    constant.train(STEPS)
    ours, theirs, other = (t.networks.state_dict() for t in (falling, by_hand, constant))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not all(torch.equal(value, other[name]) for name, value in ours.items())


def test_the_schedule_goes_on_where_it_stood(tiny: LanguageModel) -> None:
    whole, half, rest = (trainer(tiny, "linear") for _ in range(3))
    whole.train(STEPS)
    half.train(STEPS // 2)
    rest.resume(half.state())
    rest.train(STEPS)
    ours, theirs = rest.networks.state_dict(), whole.networks.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_no_steps_are_one_epoch(tiny: LanguageModel) -> None:
    found = trainer(tiny, "linear", steps=0)
    assert found.plan.steps == 40 // 4, "forty facts, four at a time"
    found.train(1)
    assert found.steps == 1
