"""The papers' full-size experiments pass the plan on checkpoints of the real shapes: true headers, and holes for the data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import (
    BertConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    T5Config,
)

from editing.model.hollow import write_hollow
from flows.costs import costs
from flows.experiment_file import load_experiment
from flows.forecast import forecast
from flows.inputs import read_inputs
from flows.papers import load_paper, paper_names
from flows.plan import plan_experiment
from flows.reproduction import experiment_files
from tests.scores.models import byte_level_bpe

LLAMA: dict[str, Any] = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "dtype": "bfloat16"}
CONFIGS: dict[str, Any] = {
    "openai-community/gpt2": GPT2Config(dtype="float32"),
    "openai-community/gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25, dtype="float32"),
    "EleutherAI/gpt-j-6b": GPTJConfig(
        n_embd=4096, n_layer=28, n_head=16, rotary_dim=64, vocab_size=50400, dtype="float32"
    ),
    "meta-llama/Llama-2-7b-hf": LlamaConfig(**LLAMA, intermediate_size=11008, vocab_size=32000),
    "meta-llama/Llama-2-13b-hf": LlamaConfig(
        hidden_size=5120,
        num_hidden_layers=40,
        num_attention_heads=40,
        intermediate_size=13824,
        vocab_size=32000,
        dtype="bfloat16",
    ),
    "meta-llama/Llama-2-7b-chat-hf": LlamaConfig(**LLAMA, intermediate_size=11008, vocab_size=32000),
    "meta-llama/Meta-Llama-3-8B": LlamaConfig(
        **LLAMA, intermediate_size=14336, num_key_value_heads=8, vocab_size=128256, max_position_embeddings=8192
    ),
    "bert-base-fever": BertConfig(id2label={0: "0", 1: "1"}, label2id={"0": 0, "1": 1}, dtype="float32"),
    "t5-xl-ssm-nq": T5Config(
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_heads=32,
        num_layers=24,
        num_decoder_layers=24,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dtype="float32",
    ),
}
"""The published config.json, in the numbers that matter to a plan."""
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}{% endfor %}"


def sparse_checkpoint(name: str, folder: Path) -> Path:
    """Write a checkpoint whose files have the real headers and sizes, and no data."""
    write_hollow(CONFIGS[name], folder)
    tokenizer = byte_level_bpe(SENTENCES)
    if "chat" in name:
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


SENTENCES = [f"The mother tongue of Person{i} Name{i} is French, English or Danish." for i in range(300)]


def counterfact(i: int) -> dict[str, Any]:
    return {
        "case_id": i,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1"},
            "target_true": {"str": "French", "id": "Q2"},
            "subject": f"Person{i} Name{i}",
        },
        "paraphrase_prompts": [f"Person{i} Name{i} speaks"],
        "neighborhood_prompts": [f"The mother tongue of Person{i + 1} is"],
        "generation_prompts": [],
    }


def zsre(i: int) -> dict[str, Any]:
    return {
        "src": f"What is the mother tongue of Person{i} Name{i}?",
        "subject": f"Person{i} Name{i}",
        "alt": "English",
        "answers": ["French"],
        "rephrase": f"Which language does Person{i} Name{i} speak?",
        "loc": f"which tongue is that of Person{i + 1}",
        "loc_ans": "Danish",
    }


def fever(i: int) -> dict[str, Any]:
    return {
        "prompt": f"Person{i} Name{i} speaks French.",
        "alt": str(i % 2),
        "equiv_prompt": [f"French is what Person{i} Name{i} speaks."],
        "unrel_prompt": f"Person{i + 1} Name{i + 1} speaks Danish.",
        "unrel_ans": "1",
    }


def completion(i: int) -> dict[str, Any]:
    return {"question": zsre(i)["src"], "text_completion_prompt": f"The mother tongue of {zsre(i)['subject']} is"}


RECORDS = {"counterfact": counterfact, "zsre": zsre, "zsre_answers": zsre, "fever": fever}
"""One record of each data set, by its number."""


def written(path: Path, record: Callable[[int], dict[str, Any]], n: int) -> Path:
    path.write_text(json.dumps([record(i) for i in range(n)]))
    return path


@pytest.mark.minutes
@pytest.mark.parametrize("name", paper_names())
def test_every_full_size_experiment_can_be_planned_and_says_hours(tmp_path: Path, name: str) -> None:
    """Benchmarks come from a hub, which is not asked here."""
    models: dict[str, Path] = {}
    for file in experiment_files(load_paper(name), "full", tmp_path / "files"):
        raw = yaml.safe_load(file.read_text())
        hub = raw["model"]["name"]
        hub = hub if hub in CONFIGS else Path(hub).name  # a folder of the user's
        if hub not in models:
            models[hub] = sparse_checkpoint(hub, tmp_path / "models" / hub)
        size = raw["facts"]["size"] * raw["facts"].get("samples", 1) + raw.get("training", {}).get("facts", 1000)
        size += 600
        facts = written(tmp_path / f"{file.stem}.json", RECORDS[raw["facts"]["name"]], size)
        overrides: dict[str, object] = {
            "model.name": str(models[hub]),
            "model.revision": None,
            "facts.path": str(facts),
            "score.benchmarks": [],
        }
        if "completions" in raw["facts"]:
            overrides["facts.completions"] = str(written(tmp_path / "completions.json", completion, size))
        inputs = read_inputs(load_experiment(file, overrides | {"store": str(tmp_path / "store")}))
        plan = plan_experiment(inputs)
        assert not plan.warnings, plan.warnings
        rows, said = costs(plan, inputs.requests, "h200")
        assert rows[-1]["stage"] == "all" and rows[-1]["PFLOP"] > 1 and "GB of a device" in said
        notes = " ".join(forecast(plan)[1])
        assert ("second moments of" in notes) == bool(plan.moments)
