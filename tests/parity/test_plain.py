"""The benchmarks' plain version of target optimisation agrees with the official implementations too."""

import pytest
import torch

from editing.targets import TargetHparams
from tests.bench.plain import plain_target
from tests.parity.conftest import STATE_TOLERANCE, Golden, relative
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
