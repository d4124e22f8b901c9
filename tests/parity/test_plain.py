"""The benchmarks' plain versions agree with the official implementations too."""

import pytest
import torch

from editing.methods.targets import TargetHparams
from tests.bench.plain import plain_emmet_solve, plain_moment, plain_scores, plain_spread, plain_target
from tests.parity.conftest import STATE_TOLERANCE, UPDATE_TOLERANCE, Golden, relative
from tests.parity.test_golden import target_hparams


@pytest.mark.case("emmet_batch24")
def test_plain_targets(golden: Golden) -> None:
    lm, arrays = golden.load(), golden.arrays("emmet_batch24")
    settings = golden.settings("emmet_batch24")["hparams"]
    given = target_hparams(settings)
    names = ("steps", "lr", "weight_decay", "clamp", "kl_weight")
    hparams = TargetHparams(**{name: given[name] for name in names})
    for number, request in enumerate(golden.requests()[:6]):
        initial, delta, losses = plain_target(
            lm, request, golden.contexts(), settings["layers"][-1], hparams, site="block"
        )
        assert relative(initial, arrays["target_init"][number]) <= STATE_TOLERANCE[golden.arch]
        assert relative(delta, arrays["delta"][number]) <= STATE_TOLERANCE[golden.arch]
        total = arrays["loss_steps"][number, :, 0]
        assert len(losses) == int((~total.isnan()).sum())
        found = torch.tensor(losses, dtype=torch.float64)
        assert relative(found, total[: len(losses)]) <= STATE_TOLERANCE[golden.arch]


@pytest.mark.case("memit_batch24")
def test_plain_memit(golden: Golden) -> None:
    """The whole of it: plain targets, keys, present states and solves, layer after layer; the model is left as it was."""
    lm, arrays, case = golden.load(), golden.arrays("memit_batch24"), golden.settings("memit_batch24")["hparams"]
    given, layers = target_hparams(case), case["layers"]
    names = ("steps", "lr", "weight_decay", "clamp", "kl_weight")
    hparams = TargetHparams(**{name: given[name] for name in names})
    moments = {layer: golden.geometry()[layer].moment for layer in layers}
    before = lm.weight(layers[0]).clone()
    found = plain_spread(
        lm, golden.requests(), golden.contexts(), layers, hparams, moments, float(case["mom2_update_weight"])
    )
    assert torch.equal(lm.weight(layers[0]), before)
    for layer in layers:
        expected = arrays[f"dW_{layer}"]
        update = found[layer].T if expected.shape == found[layer].T.shape else found[layer]
        assert relative(update, expected) <= UPDATE_TOLERANCE[golden.arch], layer


@pytest.mark.case("emmet_batch24")
def test_plain_emmet_solve(golden: Golden) -> None:
    arrays, case = golden.arrays("emmet_batch24"), golden.settings("emmet_batch24")["hparams"]
    (layer,) = case["layers"]
    ridge = case["emmet_lambda"] * float(case["mom2_update_weight"])
    residual = arrays[f"resid_{layer}"].T
    found = plain_emmet_solve(golden.geometry()[layer].moment, arrays[f"keys_{layer}"], residual, ridge)
    expected = arrays[f"dW_{layer}"]
    assert relative(found.T if expected.shape == found.T.shape else found, expected) <= UPDATE_TOLERANCE[golden.arch]


@pytest.mark.case("base_metrics")
def test_plain_scores(golden: Golden) -> None:
    lm, requests, expected = golden.load(), golden.requests(), golden.arrays("base_metrics")["nll_rewrite"]
    answers = [(r.target_new, r.target_true) for r in requests]
    found = plain_scores(lm, [r.prompt for r in requests], answers)
    lengths = [
        [len(tail) for tail in lm.format.answers([r.prompt] * 2, mine)]
        for r, mine in zip(requests, answers, strict=True)
    ]
    mean = found / torch.tensor(lengths)
    assert relative(mean.reshape(expected.shape), expected) <= UPDATE_TOLERANCE[golden.arch]


@pytest.mark.case("cov")
def test_plain_moments(golden: Golden) -> None:
    lm, settings = golden.load(), golden.settings("cov")
    sequences = lm.format.prompts(settings["texts"])
    for layer, geometry in golden.geometry().items():
        assert relative(plain_moment(lm, sequences, layer), geometry.moment) <= STATE_TOLERANCE[golden.arch]
