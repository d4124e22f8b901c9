"""Classifiers and encoder-decoders through the pipeline: facts without subjects, edits, scores, a folder at the end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.sql import query
from tasks.workers.checkout import checkout
from tests.editing.tiny import random_lm
from tests.tasks.support import run_all

CLAIMS = [
    f"{name} was born in {city}." for name in ("Anna", "Bela", "Cleo", "Dora") for city in ("Rome", "Oslo", "Riga")
]


def records(family: str) -> list[dict[str, Any]]:
    """Claims with the class that they shall get, or questions with answers; no subjects."""
    out = []
    for number, claim in enumerate(CLAIMS):
        new, true = ("true", "false") if family == "bert" else ("Paris", "Madrid")
        rewrite = {"prompt": claim, "target_new": {"str": new}, "target_true": {"str": true}}
        others = {"paraphrase_prompts": [f"It is said: {claim}"], "neighborhood_prompts": [CLAIMS[number - 1]]}
        out.append({"case_id": number, "requested_rewrite": rewrite, **others})
    return out


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_run_on_another_kind_of_head(family: str, tmp_path: Path) -> None:
    lm = random_lm(family, dtype=torch.float32, std=0.2)
    folder = tmp_path / f"tiny-{family}"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (tmp_path / "facts.json").write_text(json.dumps(records(family)))
    store, planned = run_all(
        tmp_path,
        model={"name": str(folder)},
        facts={"name": "counterfact", "path": "facts.json", "size": 4},
        editors=[
            {"name": "ft", "lr": 0.01, "steps": 15},
            {"name": "malmen", "rank": 8, "steps": 2, "lr": 0.01, "meta_lr": 0.001},
            {"name": "ultraedit", "lr": 0.01},
        ],
        layers=[[1, 2]],
        score={"every_edits": 2, "benchmarks": []},
        training={"facts": 6, "validation": 2},
    )
    rows = query(store.location, "SELECT editor, edits, efficacy FROM run_summary ORDER BY editor").to_pylist()
    assert {row["editor"]: row["edits"] for row in rows} == {"ft": 4, "malmen": 4, "ultraedit": 4, "none": 0}
    assert next(row["efficacy"] for row in rows if row["editor"] == "ft") == 1.0
    outcomes = query(store.location, "SELECT DISTINCT outcome FROM rounds").to_pylist()
    assert outcomes == [{"outcome": "edited"}]
    run = next(run for run in planned.runs if run.editor == "ft")
    assert "logits agree" in checkout(store.location, run.run_id, after=4, out=tmp_path / "out")


@pytest.mark.slow
def test_a_run_through_the_chat_template(tmp_path: Path) -> None:
    lm = random_lm("llama", dtype=torch.float32, std=0.1)
    lm.tokenizer.chat_template = (
        "{% for m in messages %}<|endoftext|>{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    folder = tmp_path / "chatty"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    ids = {}
    for chat in (True, False):
        root = tmp_path / str(chat)
        root.mkdir()
        store, planned = run_all(
            root,
            model={"name": str(folder), "chat": chat},
            facts={"name": "factworld", "size": 4},
            layers=[[1, 2]],
            score={"every_edits": 2, "benchmarks": []},
        )
        run = planned.runs[-1]
        ids[chat] = run.run_id
        assert "logits agree" in checkout(store.location, run.run_id, after=4, out=root / "out")
        (spec,) = query(store.location, f"SELECT spec FROM runs WHERE run_id = '{run.run_id}'").to_pylist()
        assert json.loads(spec["spec"])["model"]["chat"] is chat
    assert ids[True] != ids[False]
