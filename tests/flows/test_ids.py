"""Ids that stores of earlier versions hold: what an experiment that names nothing new is called never changes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.experiment_file import load_experiment
from flows.plan import Plan
from tasks.specs import recipes
from tests.flows.support import plan_of

BASE: dict[str, Any] = {
    "name": "t",
    "model": "factworld-tiny",
    "facts": {"name": "factworld", "size": 12},
    "editors": [{"name": "memit", "steps": 6, "contexts": 2}],
    "layers": [[0, 1]],
    "batch_sizes": [2],
    "second_moment": {"n_texts": 150},
    "score": {"every_edits": 4, "benchmarks": ["sentiment"], "examples": 6},
    "commit_every": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "memit": {},
    "samples": {"facts": {"name": "factworld", "size": 12, "samples": 2, "seed": 3}, "seeds": [0, 1]},
    "gpt2": {"model": "factworld-gpt2"},
    "llama bf16": {"model": {"name": "factworld-llama", "dtype": "bfloat16"}},
    "independent": {"mode": "independent", "editors": ["rome"], "layers": [0], "batch_sizes": [1]},
    "all editors": {
        "editors": [
            {"name": n}
            for n in ("emmet", "alphaedit", "ft", "ft_c", "ultraedit", "in_context", "no_op", "random_direction")
        ],
        "layers": [0],
    },
    "one": {"editors": [{"name": "rome"}, {"name": "grace"}], "layers": [0], "batch_sizes": [1]},
    "mend": {"editors": [{"name": "mend"}, {"name": "malmen"}], "layers": [[0, 1]], "training": {"facts": 200}},
    "paper": {"protocol": "paper", "editors": ["rome"], "layers": [0], "batch_sizes": [1]},
    "search": {"layers": "search", "locate": {"search": {"edits": 8}}, "editors": ["rome"], "batch_sizes": [1]},
    "trace": {"layers": "trace", "locate": {"trace": {"facts": 4}}, "editors": ["rome"], "batch_sizes": [1]},
    "stop": {"second_moment": {"n_texts": 4096, "stop_change": 0.1}},
    "benchmarks": {
        "score": {
            "every_edits": 4,
            "benchmarks": ["sentiment", "entailment", "acceptability", "paraphrase"],
            "examples": "all",
        }
    },
}

FOUND: dict[str, list[str]] = {
    "memit": ["none-b1-bece2837fd", "memit-b2-3e67dc2e86", "questions-4519dacd74edff39", "facts-151b51942312a247"],
    "samples": [
        "none-b1-517599cff6",
        "none-b1-5b2fdcbbe6",
        "memit-b2-66fc7b9307",
        "memit-b2-d5afb1131b",
        "memit-b2-4199f10fcc",
        "memit-b2-4316f38919",
        "questions-4519dacd74edff39",
        "facts-151b51942312a247",
    ],
    "gpt2": ["none-b1-f2d6e59d55", "memit-b2-0538bbb080", "questions-4519dacd74edff39", "facts-f1f0841e9238851a"],
    "llama bf16": ["none-b1-bb5f2aed14", "memit-b2-1511c002c7", "questions-4519dacd74edff39", "facts-f1f0841e9238851a"],
    "independent": ["none-b1-bece2837fd", "rome-b1-cee5532fc7", "questions-4519dacd74edff39", "facts-151b51942312a247"],
    "all editors": [
        "none-b1-bece2837fd",
        "emmet-b2-bedb6a10ec",
        "alphaedit-b2-8c878dd974",
        "ft-b2-05a9a67cb3",
        "ft_c-b2-e50369cddd",
        "ultraedit-b2-e23bef542b",
        "in_context-b2-d15932adb4",
        "no_op-b2-57391d886b",
        "random_direction-b2-b7373f2916",
        "questions-4519dacd74edff39",
        "facts-151b51942312a247",
    ],
    "one": [
        "none-b1-bece2837fd",
        "rome-b1-b7d69be743",
        "grace-b1-fccd24d2e1",
        "questions-4519dacd74edff39",
        "facts-151b51942312a247",
    ],
    "mend": [
        "none-b1-bece2837fd",
        "mend-b2-00ff41879c",
        "malmen-b2-ceb154c85c",
        "questions-4519dacd74edff39",
        "train-82b815b27a",
        "train-8f54811669",
        "facts-151b51942312a247",
    ],
    "paper": ["none-b1-bece2837fd", "rome-b1-e4e4af4bf6", "questions-4519dacd74edff39", "facts-151b51942312a247"],
    "search": [
        "none-b1-bece2837fd",
        "rome-b1-8932faee1d",
        "questions-4519dacd74edff39",
        "search-8842f4aa71",
        "facts-151b51942312a247",
    ],
    "trace": ["none-b1-bece2837fd", "rome-b1-8932faee1d", "questions-4519dacd74edff39", "facts-151b51942312a247"],
    "stop": ["none-b1-bece2837fd", "memit-b2-4c6d9c133b", "questions-4519dacd74edff39", "facts-151b51942312a247"],
    "benchmarks": [
        "none-b1-bece2837fd",
        "memit-b2-3e67dc2e86",
        "questions-4519dacd74edff39",
        "questions-25bf703fa692a7d5",
        "questions-03e6e0d9bf08eeba",
        "questions-89b80972cb68ea6f",
        "facts-151b51942312a247",
    ],
}
"""What commit ac7e539 called the runs, the questions, the searches, the trainings and the facts of each."""


def planned(tmp_path: Path, told: dict[str, Any]) -> Plan:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(BASE | {"store": str(tmp_path / "store")} | told))
    return plan_of(load_experiment(path))


@pytest.mark.parametrize("what", ["moments", "own texts", "contexts", "tracing"])
def test_another_version_of_a_computation_has_other_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    told = {"second_moment": {"texts": "self", "n_texts": 150}, "locate": {"trace": {"facts": 4}}}

    def ids() -> dict[str, str]:
        plan = planned(tmp_path, told)
        return {"edited": plan.runs[-1].run_id, "trace": plan.traces[0].run_id}

    before = ids()
    monkeypatch.setitem(recipes._VERSIONS, what, 2)
    after = ids()
    assert {name for name in before if before[name] != after[name]} == {"trace" if what == "tracing" else "edited"}


@pytest.mark.parametrize("name", CASES)
def test_ids_stay(tmp_path: Path, name: str) -> None:
    plan = planned(tmp_path, CASES[name])
    first = plan.runs[-1]
    found = [run.run_id for run in plan.runs] + [each.run_id for each in first.scoring.benchmarks]
    found += [each.run_id for each in (*plan.searches, *plan.trainings)] + [first.facts.run_id]
    assert found == FOUND[name]
