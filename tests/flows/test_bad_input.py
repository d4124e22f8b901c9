"""Every bad input is refused before any work, with what was found, what was expected and what to do."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editing.errors import RequestError
from editing.factworld.world import World
from editing.hparams import editor_names
from editing.measure.moments import SecondMoment
from editing.requests import EditRequest
from flows.benchmarks import read_benchmarks
from flows.experiment_file import load_experiment
from flows.spec_values import SpecError
from tests.flows.support import plan_of, refusal, write
from tests.scores.published import WRITERS


def counterfact(tmp_path: Path, *changes: dict[str, Any]) -> dict[str, Any]:
    records = []
    for number, change in enumerate(changes):
        rewrite = {
            "prompt": "{} works as a",
            "subject": f"Person {number}",
            "target_new": {"str": "doctor"},
            "target_true": {"str": "baker"},
        }
        records.append(
            {"case_id": number, "requested_rewrite": rewrite | change, "neighborhood_prompts": ["Anna works as a"]}
        )
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return {"name": "counterfact", "path": str(path), "size": len(changes)}


def test_the_good_experiment_is_planned(tmp_path: Path) -> None:
    plan = plan_of(load_experiment(write(tmp_path)))
    assert [run.editor for run in plan.runs] == ["none", "memit"]


def test_all_errors_of_a_file_come_at_once_with_their_paths(tmp_path: Path) -> None:
    text = refusal(
        write(tmp_path, colour="blue", facts={"name": "factworld", "sise": 3}, batch_sizes=[0], score={"every": 1})
    )
    for part in (
        "4 errors",
        "colour: unknown key",
        "facts.sise: unknown key",
        "batch_sizes.0:",
        "score.every: unknown key",
    ):
        assert part in text


def test_all_errors_of_a_plan_come_at_once(tmp_path: Path) -> None:
    text = refusal(
        write(
            tmp_path,
            editors=["memitt", {"name": "memit", "stepz": 3}, {"name": "rome", "batch_sizes": [4]}],
            layers=[[0, 1]],
            score={"benchmarks": ["sst3"]},
        )
    )
    assert f"no editor 'memitt' (did you mean 'memit'?); expected one of {editor_names()}" in text
    assert "no hyper-parameter ['stepz'] (did you mean 'steps'?)" in text
    assert "no benchmark 'sst3' (did you mean 'sst2'?)" in text
    wide = {"name": "rome", "batch_sizes": [4]}
    text = refusal(write(tmp_path, editors=[wide, {"name": "memit", "context_tokens": []}], layers=[[0, 1]]))
    assert "rome edits 1 layer at a time, found [0, 1]" in text and "impossible values {'context_tokens': []}" in text


def test_a_batch_size_that_an_editor_cannot_take(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, editors=[{"name": "rome", "batch_sizes": [4]}]))
    assert "rome edits 1 fact at a time, found batch size 4; give it batch_sizes: [1]" in text


def test_prompts_that_leave_no_room_in_the_context(tmp_path: Path) -> None:
    long = {"prompt": "{} " + "and so on " * 5 + "works as a"}
    facts = counterfact(tmp_path, {}, long, {})
    text = refusal(write(tmp_path, facts=facts, score={"text_tokens": 40}))
    assert (
        "facts: 1 prompts of 1 facts do not fit into the context of factworld-tiny, 64 tokens; the longest, of 1, needs"
        in text
    )
    assert "give smaller score.text_tokens and score.generation.tokens or a shorter prefix, or take other facts" in text
    plan_of(load_experiment(write(tmp_path, facts=facts, score={"text_tokens": 4})))
    text = refusal(write(tmp_path, facts=facts, score={"text_tokens": 4, "generation": {"tokens": 61}}))
    assert "3 prompts of 3 facts" in text


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing\.yaml: no such file; expected an experiment in YAML"):
        load_experiment(tmp_path / "nothing.yaml")
    assert "does not exist; expected a folder" in refusal(write(tmp_path, model={"name": "./nowhere"}))
    text = refusal(write(tmp_path, facts={"name": "counterfact", "path": "missing.jsonl"}))
    assert "missing.jsonl does not exist" in text
    (tmp_path / "empty").mkdir()
    assert "expected config.json, model.safetensors" in refusal(
        write(tmp_path, model={"name": str(tmp_path / "empty")})
    )


def test_a_layer_that_does_not_exist(tmp_path: Path) -> None:
    assert "no layers [6] in factworld-tiny; expected layers from 0 to 5" in refusal(write(tmp_path, layers=[6]))
    assert "expected ascending layers" in refusal(write(tmp_path, layers=[[2, 1]]))
    assert "'search' needs locate.search" in refusal(write(tmp_path, layers="search"))


def test_a_subject_that_is_not_in_its_prompt(tmp_path: Path) -> None:
    facts = counterfact(tmp_path, {}, {"prompt": "The king works as a", "subject": "The queen"})
    text = refusal(write(tmp_path, facts=facts))
    assert "request '1': the subject 'The queen' is not in its prompt 'The king works as a'" in text
    with pytest.raises(RequestError, match="has 2 slots"):
        EditRequest(request_id="a", template="{} and {}", subject="x", target_new="y", target_true="z")


def test_the_same_subject_twice_in_a_sequential_run(tmp_path: Path) -> None:
    facts = counterfact(tmp_path, {"subject": "Anna Lee"}, {"subject": "anna lee"})
    text = refusal(write(tmp_path, facts=facts))
    assert "has 2 facts, 1 of them in the order of sample 0, no subject twice" in text
    assert plan_of(load_experiment(write(tmp_path, facts=facts, mode="independent")))


def test_more_facts_than_there_are(tmp_path: Path) -> None:
    assert "facts.size is 900, the data set has 300 facts" in refusal(
        write(tmp_path, facts={"name": "factworld", "size": 900})
    )


def test_a_hub_data_set_without_a_revision(tmp_path: Path) -> None:
    assert "hub: and revision:" in refusal(write(tmp_path, facts={"name": "counterfact", "hub": "some/set"}))


def test_a_broken_facts_file(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{not json")
    assert "is not a JSON list of records" in refusal(
        write(tmp_path, facts={"name": "counterfact", "path": "bad.json"})
    )
    (tmp_path / "odd.json").write_text('[{"case_id": 3}]')
    text = refusal(write(tmp_path, facts={"name": "counterfact", "path": "odd.json"}))
    assert "record 3: found {'requested_rewrite.prompt': None" in text and "expected CounterFact's layout" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("not a record", "'a record'"),
        ({"subject": 5}, "requested_rewrite.subject': 5"),
        ({"prompt": None}, "requested_rewrite.prompt': None"),
        ({"target_new": {"str": 5}}, "requested_rewrite.target_new.str': 5"),
        ({"target_true": "Rome"}, "requested_rewrite.target_true.str': None"),
        ({"paraphrase_prompts": "S is in"}, "paraphrase_prompts': 'S is in'"),
        ({"neighborhood_prompts": ["", "x"]}, "neighborhood_prompts': ['', 'x']"),
        ({"case_id": None}, "case_id': None"),
    ],
    ids=str,
)
def test_a_record_with_a_field_of_another_kind(tmp_path: Path, change: Any, named: str) -> None:
    record: Any = {
        "case_id": 7,
        "requested_rewrite": {
            "prompt": "{} works as a",
            "subject": "Ada",
            "target_new": {"str": "doctor"},
            "target_true": {"str": "baker"},
        },
        "paraphrase_prompts": ["Ada is a"],
    }
    EditRequest.from_counterfact(record)
    for key, value in change.items() if isinstance(change, dict) else ():
        where = (
            record if key in ("case_id", "paraphrase_prompts", "neighborhood_prompts") else record["requested_rewrite"]
        )
        where[key] = value
    (tmp_path / "facts.json").write_text(json.dumps([record if isinstance(change, dict) else "a record"]))
    text = refusal(write(tmp_path, facts={"name": "counterfact", "path": "facts.json", "size": 1}, batch_sizes=[1]))
    assert named in text and "expected CounterFact's layout" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"editors": [{"name": "memit", "context_tokens": 6}]}, "context_tokens = 6 is int, expected list of int"),
        ({"editors": [{"name": "memit", "context_tokens": ["a"]}]}, "is list of str, expected list of int"),
        ({"editors": [{"name": "memit", "context_tokens": [1.5]}]}, "is list of float, expected list of int"),
        ({"editors": [{"name": "memit", "context_tokens": []}]}, "impossible values {'context_tokens': []}"),
        ({"editors": [{"name": "memit", "context_starts": []}]}, "impossible values {'context_starts': []}"),
        ({"editors": [{"name": "memit", "lr": float("inf")}]}, "lr = inf is not finite, expected float"),
        ({"editors": [{"name": "ft", "decay_power": ["a", "b"]}]}, "is list of str, expected list of float"),
        ({"editors": [{"name": "ft", "decay_power": [1000, 1]}]}, "impossible values {'decay_power'"),
        ({"editors": [{"name": "ft", "decay_power": [-0.9, 0.2], "weight_decay": 0.5}]}, "expected one of them"),
        ({"editors": [{"name": "ft", "parts": ["mlp_out", "mlp_out"]}]}, "each once"),
        ({"editors": [{"name": "ft", "parts": [["mlp_out"]]}]}, "is list of list, expected list of str"),
        ({"editors": [{"name": "ultraedit", "parts": ["block"]}]}, "UltraEdit: parts ['block']; expected some of"),
        (
            {"editors": [{"name": "rome", "preset": "r-rome-bare"}], "batch_sizes": [1], "protocol": "code"},
            "key is 'bare'",
        ),
        ({"editors": [{"name": "malmen", "edits": 100000}]}, "leave 236, fewer than the 100000 that one step edits"),
        ({"editors": ["malmen"], "training": {"validation": 1000}}, "lower training.validation"),
        ({"editors": [{"name": "memit", "remember": True}], "mode": "independent"}, "mode: independent starts"),
        ({"second_moment": {"jitter": float("inf")}}, "finite number"),
        ({"second_moment": {"files": {}, "provenance": "x"}}, "at least 1 item"),
        ({"second_moment": {"hub": "some/texts"}}, "second_moment.revision is missing"),
        (
            {"second_moment": {"hub": "some/texts", "revision": "0a1b", "path": "a.txt"}},
            "found path and hub; expected one",
        ),
        ({"second_moment": {"shard_texts": 100}}, "multiple of 64"),
        ({"layers": []}, "at least 1 item"),
        ({"editors": [{"name": "memit", "batch_sizes": []}]}, "at least 1 item"),
        ({"model": {"name": "factworld-tiny", "chat": True}}, "has no chat template"),
        ({"model": {"name": "a.gguf", "revision": "0a1b"}}, "model.revision is a commit of the hub"),
        ({"facts": {"name": "factworld", "size": 8, "ask_every": 7}}, "without known it is asked none"),
        (
            {"facts": {"name": "factworld", "size": 8, "known": "first_token", "ask_every": 100}},
            "the model is asked 3 of 300 facts, and 8 are to be edited",
        ),
        ({"second_moment": {"texts": "self", "column": "body"}}, "column says something of a hub data set"),
        (
            {"second_moment": {"path": "a.txt", "top_k": 5}},
            "top_k says how the model samples texts, and path gives others",
        ),
        ({"score": {"perplexity": {"texts": "self", "max_tokens": 1}}}, "greater than 1"),
        ({"score": {"benchmark_edits": 4}}, "benchmark_edits says when benchmarks are asked, and there are none"),
    ],
    ids=str,
)
def test_what_an_attack_found(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(write(tmp_path, **changes))


def test_published_moments_are_read_before_any_work(tmp_path: Path) -> None:
    good = SecondMoment(torch.eye(160, dtype=torch.float64), 50)
    good.write_npz(tmp_path / "good.npz")
    content = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    SecondMoment(-good.matrix, 50).write_npz(tmp_path / "negative.npz")
    SecondMoment(torch.eye(3, dtype=torch.float64), 50).write_npz(tmp_path / "small.npz")
    np.savez(tmp_path / "complex.npz", **{"mom2.count": 5, "mom2.mom2": np.eye(160) * 1j})
    expected = {
        "cut": "cannot be read",
        "empty": "cannot be read",
        "negative": "positive squares",
        "small": r"holds mom2\.mom2 of shape \[3, 3\]; expected \[160, 160\]",
        "complex": "not real numbers",
    }
    for name, message in expected.items():
        with pytest.raises(SpecError, match=message):
            plan_of(load_experiment(write(tmp_path, second_moment={"files": {0: f"{name}.npz"}, "provenance": "x"})))
    plan_of(load_experiment(write(tmp_path, second_moment={"files": {0: "good.npz"}, "provenance": "x"})))


def test_yaml_numbers_that_are_text(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("- memit", "- {name: memit, lr: 1e-5}"))
    assert "lr = '1e-5' is str, expected float" in refusal(path)


def test_impossible_hyperparameters(tmp_path: Path) -> None:
    assert "impossible values {'lr': 0.0}" in refusal(write(tmp_path, editors=[{"name": "memit", "lr": 0.0}]))
    entry = {"name": "malmen", "tokens": "some", "layers": [[0, 1]]}
    assert "impossible values {'tokens': 'some'}" in refusal(write(tmp_path, editors=[entry]))


def test_an_unknown_preset_and_a_training_that_cannot_be(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, editors=[{"name": "memit", "preset": "mine"}]))
    assert "editor 'memit' has no preset 'mine'; expected one of ['" in text
    located = {"layers": "search", "locate": {"search": {"editor": "rome", "edits": 4}}}
    text = refusal(write(tmp_path, editors=["malmen"], **located))
    assert "malmen is trained before layers are searched" in text


def test_training_facts_that_a_run_edits(tmp_path: Path) -> None:
    world = World(n_known=300).requests()[:30]
    records = [
        {
            "case_id": i,
            "requested_rewrite": {
                "prompt": r.template,
                "subject": r.subject,
                "target_new": {"str": r.target_new},
                "target_true": {"str": r.target_true},
            },
            "paraphrase_prompts": list(r.paraphrase_prompts),
            "neighborhood_prompts": list(r.neighborhood_prompts),
        }
        for i, r in enumerate(world)
    ]
    (tmp_path / "facts.json").write_text(json.dumps(records))
    facts = {"name": "counterfact", "path": "facts.json", "size": 20}
    path = write(tmp_path, facts=facts, editors=["malmen"], layers=[[0, 1]], training={"facts": 16})
    assert "training.facts: 6 of the 16 training facts are edited in sample 0" in refusal(path)


def test_a_corpus_with_fewer_texts_than_asked_for(tmp_path: Path) -> None:
    corpus = tmp_path / "few.txt"
    corpus.write_text("\n".join(f"This is the text number {number} of a few." for number in range(40)))
    given = {"path": str(corpus), "n_texts": 64}
    with pytest.raises(SpecError, match=r"second_moment.path: .*holds 40 lines.*expected 64;.*n_texts to 40"):
        plan_of(load_experiment(write(tmp_path, second_moment=given)))
    plan_of(load_experiment(write(tmp_path, second_moment=given | {"n_texts": 40})))


def test_fences_are_taken_off_for_chat_models_alone_and_as_an_option(tmp_path: Path) -> None:
    """The questions' id says which part of an answer is run."""
    WRITERS["mbpp"](tmp_path / "mbpp", 6)
    found = {}
    cases: tuple[tuple[str, bool, dict[str, Any]], ...] = (
        ("plain", False, {}),
        ("chat", True, {}),
        ("asked", False, {"extract": "code_block"}),
        ("whole", True, {"extract": "all"}),
    )
    for name, chat, extra in cases:
        wanted = {"name": "mbpp", "path": str(tmp_path / "mbpp"), "run_code": True, "examples": 2, **extra}
        model = {"name": "factworld-tiny", "chat": chat}
        experiment = load_experiment(write(tmp_path, score={"benchmarks": [wanted]}, model=model))
        problems: list[str] = []
        (reference,) = read_benchmarks(experiment, None, problems)
        assert problems == []
        found[name] = reference.reference.run_id
    assert found["chat"] == found["asked"] != found["plain"] == found["whole"]
    problems = []
    unasked = write(tmp_path, score={"benchmarks": [{"name": "sentiment", "extract": "all"}]})
    assert read_benchmarks(load_experiment(unasked), None, problems) == ()
    assert problems == [
        "score.benchmarks.0: sentiment: extract is for benchmarks whose answers are programs; leave it out"
    ]


@dataclass(frozen=True)
class OwnSettings:
    """What a score of one's own can be told."""

    prompts: int = 20


def test_settings_of_a_score_of_ones_own_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.units.score.settings_types", lambda: {"own_score": OwnSettings})
    (run, *_) = plan_of(load_experiment(write(tmp_path, score={"own_score": {}}))).runs
    assert run.scoring.scores == {"own_score": {"prompts": 20}}
    for given, said in (
        ({"own_score": {"promtps": 3}}, "own_score has no setting ['promtps']; expected some of ['prompts']"),
        ({"own_score": {"prompts": "many"}}, "own_score.prompts: Input should be a valid integer"),
        ({"own_score": 3}, "own_score: Input should be"),
        ({"further": {"own_score": {"prompts": 1}}}, "unknown key 'further'"),
        ({"other_score": {}}, "score.other_score: unknown key"),
    ):
        assert said in refusal(write(tmp_path, score=given)), said
