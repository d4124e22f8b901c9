"""A model that accelerate places: the same model, or refused where a part of it would lie outside the accelerators."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from editing.errors import ModelError
from editing.model.bundled import bundled_folder
from editing.model.loading import load, refuse_offloaded

pytest.importorskip("accelerate")


def test_a_model_that_is_spread_says_the_same() -> None:
    whole, spread = load("factworld-tiny"), load("factworld-tiny", device="auto")
    ids = torch.arange(12).view(1, -1)
    with torch.no_grad():
        assert torch.equal(spread.model.cpu()(ids).logits, whole.model(ids).logits)


def test_a_model_of_which_a_part_is_fetched_for_each_pass_is_refused(tmp_path: Path) -> None:
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    blocks = {f"model.layers.{block}": "disk" if block == 2 else "cpu" for block in range(6)}
    model = AutoModelForCausalLM.from_pretrained(
        bundled_folder("factworld-tiny"), device_map=places | blocks, offload_folder=tmp_path
    )
    with pytest.raises(ModelError, match=r"does not fit the accelerators: 9 of its tensors, model\.layers\.2\."):
        refuse_offloaded(model, "factworld-tiny")
