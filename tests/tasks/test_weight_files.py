"""What a model's folder must hold: exactly its weights, as transformers itself counts them."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.errors import ModelError
from editing.model.bundled import bundled_folder
from editing.model.families import FAMILIES
from editing.model.loading import load
from tasks.data.adapters import merge_adapter
from tasks.data.checked_model import checked_model
from tasks.data.model_files import resolve_model
from tasks.data.weight_files import check_checkpoint, look_at
from tasks.errors import InputError
from tests.editing.tiny import random_lm

Weights = dict[str, Tensor]


def copy(tmp_path: Path, name: str = "factworld-tiny") -> Path:
    source = bundled_folder(name)
    assert source is not None
    return Path(shutil.copytree(source, tmp_path / "model"))


def respell(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        look_at(resolve_model(str(folder)))
    return str(caught.value)


QUERY = "model.layers.2.self_attn.q_proj.weight"
SPOILT: dict[str, tuple[Callable[[Weights], Weights], list[str]]] = {
    "lora": (
        lambda w: (
            {name.replace("q_proj.weight", "q_proj.base_layer.weight"): value for name, value in w.items()}
            | {QUERY.replace("weight", "lora_A.default.weight"): torch.zeros(2, 64)}
        ),
        ["6 of 56 weights are not in the checkpoint", "q_proj.base_layer.weight", "merge the adapter"],
    ),
    "compiled": (
        lambda w: {f"_orig_mod.{name}": value for name, value in w.items()},
        ["56 of 56 weights", "_orig_mod.model.embed_tokens.weight", "save model._orig_mod"],
    ),
    "deleted": (
        lambda w: {name: value for name, value in w.items() if name != QUERY},
        ["1 of 56 weights", QUERY, "fetch the checkpoint again"],
    ),
    "wrong shape": (lambda w: w | {QUERY: w[QUERY][:-1]}, ["1 are of another shape", QUERY]),
    "integers": (
        lambda w: w | {QUERY: w[QUERY].to(torch.int8)},
        ["1 of its tensors are no plain floating point", QUERY, "I8 in model.safetensors"],
    ),
    "more": (lambda w: w | {"value_head.weight": torch.zeros(1, 64)}, ["value_head.weight", "have no place"]),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_weights_that_are_not_the_models(tmp_path: Path, kind: str) -> None:
    folder = copy(tmp_path)
    look_at(resolve_model(str(folder)))
    change, said = SPOILT[kind]
    respell(folder, change)
    text = refusal(folder)
    assert [part for part in said if part not in text] == [], text
    if kind != "integers":  # what the plan has not looked at, the load refuses
        with pytest.raises(ModelError) as caught:
            load(str(folder))
        assert said[0] in str(caught.value)


def shard(folder: Path) -> list[str]:
    """Save a bundled model's copy in shards; return their names."""
    model = load(str(folder)).model
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    names = shard(folder)
    assert len(names) > 2
    look_at(resolve_model(str(folder)))
    (folder / names[1]).unlink()
    said = refusal(folder)
    assert re.search(rf"model\.safetensors\.index\.json: \S+ is to stand in '{names[1]}', which is no file", said), said


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    name = shard(folder)[0]
    (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    assert f"{name} cannot be read" in refusal(folder)


def test_pickled_weights_say_how_to_convert_them(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "found pytorch_model.bin and no *.safetensors" in refusal(folder)


# --- adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = load("factworld-tiny").model
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    wrapped.save_pretrained(folder)
    return folder


def test_an_adapter_beside_a_model(tmp_path: Path, adapter: Path) -> None:
    folder = copy(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, folder)
    assert "has an adapter beside its weights (adapter_config.json)" in refusal(folder)
    with pytest.raises(ModelError, match=r"adapter beside its weights.*merge the adapter"):
        load(str(folder))


def test_an_adapter_without_its_model(adapter: Path) -> None:
    text = refusal(adapter)
    assert "holds an adapter (adapter_config.json) and no model" in text
    assert f"adapter: {adapter}" in text


def test_an_adapter_that_is_asked_for_is_merged_and_named(tmp_path: Path, adapter: Path) -> None:
    plain, merged = (checked_model(resolve_model("factworld-tiny", adapter=a)).ref for a in (None, str(adapter)))
    assert plain.digest == merged.digest
    assert plain.identity != merged.identity
    before, after = load("factworld-tiny"), load("factworld-tiny", adapt=partial(merge_adapter, folder=adapter))
    name = before.module_name(1, "mlp_out") + ".weight"
    state = load_file(adapter / "adapter_model.safetensors")
    A, B = (
        next(v for k, v in state.items() if "layers.1.mlp.down_proj" in k and part in k)
        for part in ("lora_A", "lora_B")
    )
    scale = json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"] / 2
    torch.testing.assert_close(after.parameter(name) - before.parameter(name), scale * B @ A)
    after.model.save_pretrained(tmp_path / "saved")
    after.tokenizer.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(load(str(tmp_path / "saved")).parameter(name), after.parameter(name))


def test_an_adapter_of_another_model(adapter: Path) -> None:
    with pytest.raises(InputError, match="adapter"):
        look_at(resolve_model("factworld-gpt2", adapter=str(adapter)))


def test_half_an_adapter(tmp_path: Path, adapter: Path) -> None:
    half = Path(shutil.copytree(adapter, tmp_path / "half"))
    state = load_file(half / "adapter_model.safetensors")
    save_file(dict(list(state.items())[1:]), half / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"missing .*lora_A.*belongs to this model"):
        look_at(resolve_model("factworld-tiny", adapter=str(half)))


# --- what is in the digest


def test_ends_that_only_the_generation_settings_name_are_in_the_digest(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    usual = resolve_model("factworld-tiny").digest
    assert resolve_model(str(folder)).digest == usual
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"temperature": 0.5}))
    assert resolve_model(str(folder)).digest == usual, "nothing here draws with a temperature"
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [0, 7]}))
    assert resolve_model(str(folder)).digest != usual


# --- no false refusal


def save(
    tmp_path: Path, family: str, dtype: torch.dtype = torch.float32, shard_size: str = "1GB", **changes: object
) -> Path:
    lm = random_lm(family, dtype=dtype, **changes)
    folder = tmp_path / family
    lm.model.save_pretrained(folder, max_shard_size=shard_size)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tmp_path: Path, family: str) -> None:
    for number, (dtype, size) in enumerate(((torch.float32, "1GB"), (torch.bfloat16, "20KB"))):
        folder = save(tmp_path / str(number), family, dtype, size)
        if size == "20KB":
            assert len(list(folder.glob("model-*.safetensors"))) > 1
        look_at(resolve_model(str(folder)))
        load(str(folder))


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.head == "causal"])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_and_untied_ones(tmp_path: Path, family: str, tied: bool) -> None:
    folder = save(tmp_path, family, tie_word_embeddings=tied)
    assert look_at(resolve_model(str(folder))).context
    assert (load(str(folder)).model.config.tie_word_embeddings is True) == tied


OLDER: dict[str, tuple[str, Callable[[Weights], Weights]]] = {
    "GPT-2 of the hub, without a prefix and with masks": (
        "gpt2",
        lambda w: (
            {name.removeprefix("transformer."): value for name, value in w.items()}
            | {f"h.{i}.attn.bias": torch.ones(1, 1, 96, 96) for i in range(4)}
            | {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(4)}
        ),
    ),
    "GPT-2 with masks of bytes": (
        "gpt2",
        lambda w: w | {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96, dtype=torch.uint8) for i in range(4)},
    ),
    "GPT-J with masks": (
        "gptj",
        lambda w: (
            w
            | {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96, dtype=torch.bool) for i in range(4)}
            | {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e9) for i in range(4)}
        ),
    ),
    "GPT-NeoX with masks and frequencies": (
        "gpt_neox",
        lambda w: (
            w
            | {f"gpt_neox.layers.{i}.attention.bias": torch.ones(1, 1, 96, 96, dtype=torch.bool) for i in range(4)}
            | {f"gpt_neox.layers.{i}.attention.masked_bias": torch.tensor(-1e9) for i in range(4)}
            | {f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": torch.ones(4) for i in range(4)}
        ),
    ),
    "Llama with frequencies": (
        "llama",
        lambda w: w | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(4)},
    ),
    "BERT with gamma, beta and position ids": (
        "bert",
        lambda w: (
            {
                name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
                for name, value in w.items()
            }
            | {"bert.embeddings.position_ids": torch.arange(96)[None]}
        ),
    ),
}


@pytest.mark.parametrize("kind", OLDER)
def test_older_checkpoints(tmp_path: Path, kind: str) -> None:
    family, change = OLDER[kind]
    folder = save(tmp_path, family)
    before = load(str(folder)).snapshot(load(str(folder)).parameter_names(1).values())
    respell(folder, change)
    look_at(resolve_model(str(folder)))
    after = load(str(folder))
    assert all(torch.equal(after.parameter(name), value) for name, value in before.items())


def test_headers_alone_are_read(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"  # NaN, which only the load sees
    (folder / "model.safetensors").write_bytes(content)
    check_checkpoint(folder, "m")
