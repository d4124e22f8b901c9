"""Models and tokenizers that cannot be used are refused before any work, with what was found and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from editing.errors import ModelError, TokenizationError
from editing.model.bundled import bundled_folder
from editing.model.families import FAMILIES
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.model.tokens import PromptFormat
from tests.editing.tiny import random_lm
from tests.flows.support import refusal, write


def bundled_copy(tmp_path: Path) -> Path:
    """A bundled model, to be spoilt."""
    source = bundled_folder("factworld-tiny")
    assert source is not None
    return Path(shutil.copytree(source, tmp_path / "model"))


def test_a_classifier_refuses_locating_editors(tmp_path: Path) -> None:
    lm = random_lm("bert", dtype=torch.float32)
    folder = tmp_path / "bert"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    text = refusal(write(tmp_path, model={"name": str(folder)}, editors=["memit", "ft"]))
    assert "memit cannot edit layers [0] of bert: it looks for a subject's state in a left-to-right model" in text
    assert "ft cannot" not in text


def test_quantised_weights(tmp_path: Path) -> None:
    folder = bundled_copy(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    packed = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (folder / "config.json").write_text(json.dumps(config | packed))
    assert "is quantised ('bitsandbytes'); expected float32, bfloat16" in refusal(
        write(tmp_path, model={"name": str(folder)})
    )
    with pytest.raises(ModelError, match=r"is quantised.*load the unquantised checkpoint"):
        load(str(folder))


def test_a_shared_weight_cannot_be_edited() -> None:
    lm = random_lm("gpt2")
    lm.model.transformer.h[1].mlp.c_proj.weight = lm.model.transformer.h[2].mlp.c_proj.weight
    shared = LanguageModel(lm.model, lm.tokenizer)
    with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_proj\.weight is one tensor with .*h\.2\.mlp"):
        shared.parameter_names(1)


def test_a_chat_template_that_is_not_there() -> None:
    lm = random_lm("gpt2")
    with pytest.raises(TokenizationError, match=r"no chat template.*chat: false"):
        LanguageModel(lm.model, lm.tokenizer, chat=True)


def test_an_answer_that_is_no_class() -> None:
    lm = random_lm("bert")
    with pytest.raises(TokenizationError, match=r"'maybe' is no class.*\['false', 'true'\]"):
        lm.answer_logprobs(["The sky is green."], ["maybe"])


def test_a_nan_weight(tmp_path: Path) -> None:
    folder = bundled_copy(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 4] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"1 of \d+ values of model\.layers\.1\.mlp\.down_proj\.weight are NaN.*safetensors.*fetch it"
    ):
        load(str(folder))


def test_a_tokenizer_without_the_targets_tokens() -> None:
    known = {"[UNK]": 0, "Anna": 1, "works": 2, "as": 3, "a": 4, "baker": 5}
    backend = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    form = PromptFormat(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))
    assert form.answers(["Anna works as a"], ["baker"]) == [(5,)]
    with pytest.raises(TokenizationError, match=r"does not know the answer 'surgeon'.*unknown token '\[UNK\]'"):
        form.answers(["Anna works as a"], ["surgeon"])


def test_an_unknown_family(tmp_path: Path) -> None:
    folder = bundled_copy(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert f"type 'mamba'; expected one of {sorted(FAMILIES)}" in refusal(write(tmp_path, model={"name": str(folder)}))
