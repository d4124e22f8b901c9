"""A folder with one good file of every kind that an experiment reads, and experiments that read them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from editing.measure.moments import SecondMoment
from editing.model.bundled import bundled_folder
from tasks.benchmarks.definition import DEFINITIONS
from tasks.data.facts import world_for
from tests.scores.published import GROUPS, WRITERS
from tests.scores.test_datasets import easyedit, known, rome, zsre

LAYOUTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "counterfact": rome,
    "counterfact_easyedit": easyedit,
    "zsre": zsre,
    "zsre_answers": zsre,
    "fever": lambda i: {
        "prompt": f"Ada wrote book {i}.",
        "equiv_prompt": [f"Book {i} was written by Ada."],
        "unrel_prompt": f"B is {i}.",
        "alt": "1",
        "unrel_ans": "0",
    },
    "known_facts": lambda i: known(i, "P1", ("Asia", "Peru", "Oslo", "Rome")[i % 4]),
}
BENCHMARKS = ("sst2", "mmlu", "mrpc", "cola", "rte", "commonsense_qa", "bbh", "math", "tydiqa", "c3", "ax_b")
OWN_LAYOUT = {
    "title": "facts of one's own",
    "fields": {
        "request_id": "record.case_id",
        "prompt": "record.src",
        "subject": "record.subject",
        "target_new": "record.alt",
        "target_true": "record.answers | first",
        "neighborhood_prompts": "[record.loc]",
        "neighborhood_answers": "[record.loc_ans]",
    },
}


def make_inputs(root: Path) -> None:
    """Write one good file of every kind below ``root``."""
    source = bundled_folder("factworld-tiny")
    assert source is not None
    shutil.copytree(source, root / "model", ignore=shutil.ignore_patterns("README.md"))
    world = world_for("factworld-tiny")
    facts = [
        {
            "case_id": i,
            "requested_rewrite": {
                "prompt": request.template,
                "subject": request.subject,
                "relation_id": request.relation,
                "target_new": {"str": request.target_new},
                "target_true": {"str": request.target_true},
            },
            "paraphrase_prompts": list(request.paraphrase_prompts),
            "neighborhood_prompts": list(request.neighborhood_prompts),
            "generation_prompts": [],
        }
        for i, request in enumerate(world.requests()[:6])
    ]
    dump(root / "facts.json", facts)
    dump(root / "order.json", [3, 0, 2, 5])
    texts = world.corpus(80)
    (root / "texts.txt").write_text("\n".join(texts[:60]) + "\n")
    (root / "held.txt").write_text("\n".join(texts[60:]) + "\n")
    dump(root / "contexts.json", ["The river is long. ", "It rains. "])
    width = json.loads((root / "model" / "config.json").read_text())
    d_in = int(width.get("intermediate_size") or 4 * width["n_embd"])
    draws = np.random.RandomState(0).randn(4 * d_in, d_in)
    SecondMoment(_tensor(draws.T @ draws / len(draws)), len(draws)).write_npz(root / "moment.npz")
    for name, record in LAYOUTS.items():
        dump(root / f"{name}.json", [record(i) for i in range(4)])
    questions = [{"question": f"How long is River {i}?", "text_completion_prompt": f"River {i} has"} for i in range(4)]
    dump(root / "completions.json", questions)
    (root / "layout.yaml").write_text(yaml.safe_dump(OWN_LAYOUT, sort_keys=False))
    own = [{"case_id": i, **zsre(i)} for i in range(4)]
    dump(root / "own.json", own)
    for name in BENCHMARKS:
        WRITERS[name](root / "benchmarks" / name, 8)
    (root / "definition.yaml").write_text((DEFINITIONS / "sst2.yaml").read_text())
    small = yaml.safe_load((DEFINITIONS / "math.yaml").read_text())
    small["answer"]["tokens"] = 4  # the model reads 64 at once
    (root / "few.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    (root / "shots.txt").write_text("the film is good\npositive\n\n")
    write_experiment(root, experiment())


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_experiment(root: Path, raw: dict[str, Any]) -> None:
    (root / "experiment.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))


def experiment(**changes: Any) -> dict[str, Any]:
    """The experiment that edits: it reads model, facts, texts."""
    raw: dict[str, Any] = {
        "name": "broken",
        "model": {"name": "model"},
        "facts": {"name": "counterfact", "path": "facts.json", "size": 2},
        "editors": [{"name": "rome", "steps": 1, "contexts": 1}],
        "layers": [0],
        "batch_sizes": [1],
        "second_moment": {"path": "texts.txt", "n_texts": 60},
        "score": {"every_edits": 2, "text_tokens": 2},
    }
    return raw | changes


def reading(name: str, **facts: Any) -> dict[str, Any]:
    """An experiment that only reads facts."""
    given = {"name": name, "path": f"{name}.json", "size": 4, **facts}
    return experiment(facts=given, editors=["no_op"], score={"every_edits": 0, "text_tokens": 2})


def asking(name: str, **benchmark: Any) -> dict[str, Any]:
    """An experiment that asks a benchmark."""
    given = {"name": name, "path": f"benchmarks/{name}", "examples": 2, "shots": 0, **benchmark}
    if name == "math":
        given["name"] = "few.yaml"
    if name in GROUPS:
        given.setdefault("groups", list(GROUPS[name]))
    score = {"every_edits": 0, "text_tokens": 2, "benchmarks": [given]}
    return experiment(editors=["no_op"], score=score)


def _tensor(values: Any) -> Any:
    import torch

    return torch.tensor(values)
