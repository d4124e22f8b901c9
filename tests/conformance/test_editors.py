"""What must hold of every editor, on every family, in float32 and bfloat16."""

from typing import Any

import pytest
import torch

from editing.api import apply, check_shape
from editing.errors import HparamsError
from editing.hparams import editor_names
from editing.methods.editor import ParameterUpdate, editor_class
from editing.methods.locate import LocatingEditor
from editing.model.families import FAMILIES
from editing.model.patches import PatchChange
from tasks.runs.ledger import apply_change, changes_of, digest_of_parameters, result_rows
from tests.conformance.cases import (
    CONTROLS,
    DTYPES,
    artifacts,
    batch_size,
    edits_of,
    layers_for,
    method,
    model,
    same,
    state_of,
)

PAIRS = [
    (name, family)
    for family in sorted(FAMILIES)
    for name in editor_names()
    if editor_class(name).refusal(FAMILIES[family], 1) is None
]


def every_but(*names: str) -> pytest.MarkDecorator:
    """Return a mark for every pair of an editor and a family but those of some editors, of which nothing is expected."""
    pairs = [pair for pair in PAIRS if pair[0] not in names]
    return pytest.mark.parametrize(("name", "family"), pairs, ids=[f"{n}-{f}" for n, f in pairs])


every = every_but()
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])


@pytest.fixture
def clean(family: str, dtype: torch.dtype) -> Any:
    """The pristine model; whatever a test does to it is undone."""
    lm = model(family, dtype)
    names = [name for name, _ in lm.model.named_parameters()]
    with lm.preserved(names):
        yield lm


@every
@dtypes
def test_edits_take_effect_restore_and_come_back_from_the_ledger_bit_by_bit(
    name: str, family: str, dtype: torch.dtype, clean: Any
) -> None:
    lm, layers, n = clean, layers_for(name, family), batch_size(name)
    editor, inputs = method(name), artifacts(name, family, dtype, layers)
    check_shape(name, lm, layers, n)
    pristine, state, rows = state_of(lm), {}, []
    names = editor.parameter_names(lm, layers)
    snapshot = lm.snapshot(names)
    before = answers(lm, family)
    for round_ in range(2):
        batch = edits_of(family, n, start=round_ * n)
        held = state_of(lm)
        result = editor.edit(lm, batch, layers, state, inputs)
        assert same(state_of(lm), held), "editing leaves the model as it was until it is applied"
        assert [report.request_id for report in result.facts] == [request.request_id for request in batch]
        result.apply(lm)
        state = result.state
        rows += result_rows(round_, result)
        for change in (*result.updates, *result.patches):
            assert isinstance(change, PatchChange) or change.name in names
    edited = state_of(lm)
    digest = digest_of_parameters(lm, names)
    moved = answers(lm, family)
    if name == "no_op":
        assert same(edited, pristine) and not rows
    else:
        assert not same(edited, pristine)
        assert moved != before, "the edited model answers the edited prompts in another way"
    lm.restore(snapshot)
    lm.patches.clear()
    assert same(state_of(lm), pristine), "restored bit by bit"
    for _, changes in sorted(changes_of(rows).items()):
        for change in changes:
            apply_change(lm, change)
    assert same(state_of(lm), edited), "rebuilt from the ledger bit by bit"
    assert digest_of_parameters(lm, names) == digest


def answers(lm: Any, family: str) -> list[float]:
    batch = edits_of(family, 6)
    scores = lm.answer_logprobs([r.prompt for r in batch], [r.target_new for r in batch])
    return [score.nll_sum for score in scores]


# Controls, untrained networks, and a reminder that a random model cannot read promise nothing.
@every_but(*CONTROLS, "malmen", "mend", "in_context")
def test_the_new_answers_become_likelier(name: str, family: str) -> None:
    lm, layers, n = model(family, torch.float32), layers_for(name, family), batch_size(name)
    batch = edits_of(family, n)
    prompts, wanted = [r.prompt for r in batch], [r.target_new for r in batch]
    searches = {"steps": 20, "lr": 0.05, "weight_decay": 0.0, "kl_weight": 0.0}  # long enough for random weights
    editor = method(name, **(searches if issubclass(editor_class(name), LocatingEditor) else {}))
    inputs = artifacts(name, family, torch.float32, layers)
    with lm.preserved([p for p, _ in lm.model.named_parameters()]):
        before = [score.nll_sum for score in lm.answer_logprobs(prompts, wanted)]
        apply(lm, editor, batch, layers, {}, inputs)
        after = [score.nll_sum for score in lm.answer_logprobs(prompts, wanted)]
    assert sum(after) < sum(before) - 1e-4, (before, after)


WITHOUT_ORDER = {
    "no_op": "nothing is written",
    "grace": "one fact at a time",
    "rome": "one fact at a time",
    "random_direction": "the draw names the batch in its order",
    "in_context": "reminders stand in the order in which they came",
    "ft": "minibatch losses and Adam are symmetric in a batch, but compared by the test of fine-tuning alone",
}


@every_but(*WITHOUT_ORDER)
def test_order_and_padding_change_nothing_but_rounding(name: str, family: str) -> None:
    lm, layers, n = model(family, torch.float32), layers_for(name, family), 3
    editor, inputs = method(name), artifacts(name, family, torch.float32, layers)
    batch = edits_of(family, n)
    before = lm.tokens_per_forward
    try:
        straight = editor.edit(lm, batch, layers, {}, inputs)
        lm.tokens_per_forward = 24  # other micro-batches, other padding
        turned = editor.edit(lm, batch[::-1], layers, {}, inputs)
    finally:
        lm.tokens_per_forward = before
    assert straight.updates
    for one, other in zip(straight.updates, turned.updates, strict=True):
        moved, again = change_of(lm, one), change_of(lm, other)
        error = float((moved - again).norm() / moved.norm().clamp_min(1e-12))
        assert error < 3e-5, (one.name, error)  # up to 4e-6 was found


def change_of(lm: Any, update: ParameterUpdate) -> torch.Tensor:
    with lm.preserved([update.name]):
        before = lm.precise(update.name).double().clone()
        update.apply(lm)
        return lm.precise(update.name).double() - before


REFUSED = {
    ("alphaedit", "bert"): "left-to-right",
    ("alphaedit", "t5"): "left-to-right",
    ("emmet", "bert"): "left-to-right",
    ("emmet", "t5"): "left-to-right",
    ("grace", "bert"): "left-to-right",
    ("grace", "t5"): "left-to-right",
    ("in_context", "bert"): "left to right",
    ("in_context", "t5"): "left to right",
    ("memit", "bert"): "left-to-right",
    ("memit", "t5"): "left-to-right",
    ("random_direction", "bert"): "left-to-right",
    ("random_direction", "t5"): "left-to-right",
    ("rome", "bert"): "left-to-right",
    ("rome", "t5"): "left-to-right",
}
ONE_LAYER_ONLY = {
    (name, family): "a norm stands between"
    for name in ("memit", "alphaedit", "random_direction", "emmet")
    for family in ("gemma2", "gemma3_text")
}


def test_what_is_unsupported_is_this_table() -> None:
    """Reviewed by hand: a new editor or family adds its lines here."""
    found, found_single = {}, {}
    for name in editor_names():
        for family, row in FAMILIES.items():
            if (why := editor_class(name).refusal(row, 1)) is not None:
                found[name, family] = why
            elif (why := editor_class(name).refusal(row, 2)) is not None:
                found_single[name, family] = why
    assert found.keys() == REFUSED.keys()
    assert all(REFUSED[key] in why for key, why in found.items()), found
    assert found_single.keys() == ONE_LAYER_ONLY.keys()
    assert all(ONE_LAYER_ONLY[key] in why for key, why in found_single.items()), found_single


@pytest.mark.parametrize(("name", "family"), [("rome", "bert"), ("grace", "t5")])
def test_a_refused_pair_says_so_before_any_work(name: str, family: str) -> None:
    with pytest.raises(HparamsError, match="left-to-right"):
        check_shape(name, model(family, torch.float32), [1], 1)
