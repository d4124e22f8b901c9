"""Editing from Python: what is said of it, and the way back."""

import math
from typing import Any

import pytest
import torch

from editing import edit, load
from editing.editors.rome import Rome
from editing.errors import EditingError, HparamsError
from editing.factworld.world import World
from editing.hparams import default_layers, editor_names
from editing.measure.own_texts import enough, own_texts
from editing.model.lm import LanguageModel

FACTS = [
    {"prompt": request.prompt, "subject": request.subject, "target_new": request.target_new}
    for request in World(n_known=300).requests()[:3]
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("factworld-tiny")


def weights(lm: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def same(lm: LanguageModel, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(parameter, before[name]) for name, parameter in lm.model.named_parameters())


@pytest.mark.parametrize("editor", ["memit", "rome", "ft", "grace", "in_context"])
def test_a_with_undoes_to_the_bit(lm: LanguageModel, editor: str) -> None:
    before, answers = weights(lm), [lm.ask(fact["prompt"]) for fact in FACTS]
    with edit(lm, FACTS, editor=editor) as edits:
        after = [lm.ask(fact["prompt"]) for fact in FACTS]
        assert editor == "in_context" or after == [fact["target_new"] for fact in FACTS]
        assert [row["answer"] for row in edits.rows] == after
    assert same(lm, before) and [lm.ask(fact["prompt"]) for fact in FACTS] == answers


def test_nested_edits_are_undone_from_the_newest_on(lm: LanguageModel) -> None:
    before = weights(lm)
    first = edit(lm, FACTS[:1], editor="rome")
    one = weights(lm)
    second = edit(lm, FACTS[1:2], editor="rome", layers=[1])
    second.undo()
    assert same(lm, one)
    edit(lm, FACTS[1:2], editor="grace", layers=[1])
    first.undo()
    assert same(lm, before) and not lm.edited and lm.ask(FACTS[1]["prompt"]) != FACTS[1]["target_new"]
    second.undo()
    first.undo()
    assert same(lm, before), "nothing is put back"


def test_an_edit_that_fails_on_the_way_leaves_nothing(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before, calls = weights(lm), list[int]()
    whole = Rome.edit

    def fails_later(self: Rome, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(Rome, "edit", fails_later)
    with pytest.raises(KeyboardInterrupt):
        edit(lm, FACTS, editor="rome")
    assert len(calls) == 2 and same(lm, before)


def test_it_prints_as_a_short_table(lm: LanguageModel) -> None:
    with edit(lm, FACTS) as edits:
        text = repr(edits)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["took", "prompt", "target_new"] and all(
        line.startswith("yes") for line in lines[1:4]
    )
    assert lines[4].startswith("3 of 3 took, in 1 batch; ‖change‖ ") and "tensor" not in text
    assert lines[5] == "layers [0, 1, 2]: those of factworld-tiny in editing/hparams/memit.yaml"
    assert lines[6].startswith("second moments: of 200 texts that the model sampled itself")
    assert "<td>yes</td>" in edits._repr_html_() and len(edits) == 1 and edits[0] is edits.batches[0]


def test_its_numbers_are_those_of_the_model(lm: LanguageModel) -> None:
    before = weights(lm)
    with edit(lm, FACTS, editor="rome") as edits:
        (score,) = lm.answer_logprobs([FACTS[0]["prompt"]], [FACTS[0]["target_new"]])
        changes = {name: float((p - before[name]).norm()) for name, p in lm.model.named_parameters()}
        row = edits.rows[0]
        assert row["probability"] == pytest.approx(math.exp(-score.nll_sum), rel=1e-6) and row["took"] == score.correct
        assert row["loss"] == pytest.approx(score.nll_mean, rel=1e-6)
        assert edits.norm == pytest.approx(math.hypot(*changes.values()), rel=1e-5)


def test_given_layers_and_texts_are_not_spoken_of(lm: LanguageModel) -> None:
    with edit(lm, FACTS, layers=[0, 1], texts=World(n_known=300).corpus(100)) as edits:
        assert not edits.said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
        ({"texts": "abc"}, "expected a list of them"),
        ({"layers": 9}, "no layers"),
        ({"facts": [FACTS[0] | {"target_new": "Rome " * 70}]}, "the model reads 64 at once"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(lm: LanguageModel, given: dict[str, Any], said: str) -> None:
    before = weights(lm)
    with pytest.raises(EditingError, match=said):
        edit(lm, given.pop("facts", FACTS), **given)
    assert same(lm, before)


def test_a_model_by_name_is_no_model_and_a_typo_is_told_of() -> None:
    with pytest.raises(EditingError, match=r"found str 'factworld-tiny'; expected a loaded model"):
        edit("factworld-tiny", FACTS)  # type: ignore[arg-type]
    with pytest.raises(EditingError, match=r"no model 'factworld-gpt' \(did you mean 'factworld-gpt2'\?\)"):
        load("factworld-gpt")
    with pytest.raises(EditingError, match="dtype 'float31'; expected auto"):
        load("factworld-tiny", dtype="float31")


def test_one_layer_may_be_a_number(lm: LanguageModel) -> None:
    with edit(lm, FACTS[:1], editor="rome", layers=1) as edits:
        assert list(edits.norms) == ["model.layers.1.mlp.down_proj.weight"]


def test_a_network_that_is_not_there(lm: LanguageModel) -> None:
    with pytest.raises(HparamsError, match="'mend' is a trained network; found none"):
        edit(lm, FACTS, editor="mend")


def test_texts_of_its_own_depend_on_their_numbers_only(lm: LanguageModel) -> None:
    texts = own_texts(lm, range(6), n_tokens=8)
    assert own_texts(lm, range(2, 6), n_tokens=8) == texts[2:] and len(set(texts)) == 6
    assert own_texts(lm, range(6), n_tokens=8, seed=1) != texts and enough(6400) == 400 and enough(10) == 200


def test_every_editor_has_layers_for_any_model() -> None:
    for name in editor_names():
        layers, why = default_layers(name, model="someone/never-heard-of", n_layers=12)
        assert layers and layers == sorted(layers) and max(layers) < 12 and "no source names any" in why
    assert default_layers("memit", model="someone/gpt2-xl", n_layers=48)[0] == [13, 14, 15, 16, 17]
    assert default_layers("memit", model="Llama-2-7b-chat-hf", n_layers=32)[0] == [4, 5, 6, 7, 8], "as its base model"
    assert default_layers("rome", model="gpt2", n_layers=12)[0] == [4], "gpt2-xl's 17 of 48, not its number"


def test_generate_goes_on_and_ask_ends(lm: LanguageModel) -> None:
    prompt = FACTS[0]["prompt"]
    assert lm.generate(prompt, n_tokens=2).startswith(prompt + " ") and "." not in lm.ask(prompt)
