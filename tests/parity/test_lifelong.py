"""AlphaEdit, UltraEdit and GRACE as their official implementations ran them, batch after batch."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from editing.editors.alphaedit import AlphaEdit
from editing.editors.grace import Codebook, Grace
from editing.editors.ultraedit import UltraEdit
from editing.methods.editor import make_editor
from editing.methods.locate import read_keys
from tests.parity.conftest import STATE_TOLERANCE, UPDATE_TOLERANCE, Golden, relative
from tests.parity.test_golden import artifacts_of, check_metrics, target_hparams
from tests.parity.test_hypernetworks import pairs

GRACE_TOLERANCE = 1e-8


@pytest.mark.case("alphaedit_seq2x12")
def test_alphaedit(golden: Golden) -> None:
    lm, arrays, case = golden.load(), golden.arrays("alphaedit_seq2x12"), golden.settings("alphaedit_seq2x12")
    settings, inputs = case["hparams"], artifacts_of(golden)
    hparams = target_hparams(settings) | {"remember": True}
    hparams |= {"null_threshold": settings["nullspace_threshold"], "ridge": float(settings["L2"])}
    editor = cast(AlphaEdit, make_editor("alphaedit", hparams))
    layers, state = settings["layers"], {}
    by_id = {int(request.request_id): request for request in golden.requests()}
    for place, layer in enumerate(layers):
        geometry = inputs.geometry[layer]
        values = geometry.spectrum[0].flip(0)
        assert float((values - arrays[f"S_{layer}"]).abs().max() / values.max()) <= STATE_TOLERANCE[golden.arch]
        basis = geometry.null_space(settings["nullspace_threshold"])
        assert basis.shape[1] == case["nullspace_rank"][place]
        if f"P_{layer}" in arrays:
            assert relative(basis @ basis.T, arrays[f"P_{layer}"]) <= STATE_TOLERANCE[golden.arch]
    for number, mine in enumerate(case["batches"]):
        batch = [by_id[i] for i in mine["case_ids"]]
        result = editor.edit(lm, batch, layers, state, inputs)
        before = lm.snapshot(editor.parameter_names(lm, layers))
        result.apply(lm)
        state = dict(result.state)
        for layer, (name, value) in zip(layers, before.items(), strict=True):
            assert (
                relative(lm.parameter(name) - value, arrays[f"b{number}.dW_{layer}"]) <= UPDATE_TOLERANCE[golden.arch]
            )
            after = read_keys(lm, batch, inputs.contexts, [layer], editor.averaging)[layer].mean
            assert relative(after, arrays[f"b{number}.keys_after_{layer}"]) <= UPDATE_TOLERANCE[golden.arch]
            kept = state[f"keys.{layer}"].double()
            cache = float((kept.T @ kept).norm())
            assert cache == pytest.approx(float(arrays[f"b{number}.cache_c_norm_{layer}"]), rel=1e-5)
    check_metrics(golden, lm, "alphaedit_seq2x12")


@pytest.mark.case("ultraedit_seq2x12")
def test_ultraedit(golden: Golden) -> None:
    lm, arrays, case = golden.load(), golden.arrays("ultraedit_seq2x12"), golden.settings("ultraedit_seq2x12")
    settings = case["settings"]
    hparams = {
        "lr": settings["lr"],
        "ridge": 1.0,
        "parts": ["mlp_out"],
        "microbatch": settings["batch_size"],
        "chunk": 16,
    }
    editor = cast(UltraEdit, make_editor("ultraedit", hparams | {"protocol": "code"}))
    modules = dict.fromkeys(settings["edit_modules"], 0)
    tolerance, state = UPDATE_TOLERANCE[golden.arch], {}
    for number in range(2):
        batches = pairs(arrays, f"s{number}.edit_tuples")
        before = lm.snapshot([f"{module}.weight" for module in modules])
        updates, _, state = editor.edit_pairs(lm, batches, modules, state)
        for update in updates:
            update.apply(lm)
        for module in modules:
            moved = lm.parameter(f"{module}.weight") - before[f"{module}.weight"]
            norm = float(arrays[f"s{number}.param_shift_norm.{module}"])
            assert float(moved.norm()) == pytest.approx(norm, rel=tolerance)
            if f"s{number}.param_shift.{module}" in arrays:
                shift = moved if lm.is_transposed(f"{module}.weight") else moved.T
                assert relative(shift, arrays[f"s{number}.param_shift.{module}"]) <= tolerance
        for name, value in arrays.items():
            if name.startswith(f"s{number}.normalizer."):
                shape, statistic = name.removeprefix(f"s{number}.normalizer.").rsplit(".", 1)
                ours = f"{shape.strip('()').replace(', ', 'x')}.{statistic}"
                assert relative(state[ours], value) <= tolerance, name
    for module in modules:
        assert relative(lm.parameter(f"{module}.weight"), arrays[f"W.{module}"]) <= tolerance, module
    check_metrics(golden, lm, "ultraedit_seq2x12")


def book_of(arrays: Mapping[str, Tensor], edit: int) -> dict[str, Tensor]:
    names = {"key": "keys", "value": "values", "epsilon": "epsilons", "label": "key_label_means"}
    return {column: arrays[f"e{edit}.{name}"] for column, name in names.items()}


def grace_edits(golden: Golden, name: str) -> tuple[Grace, str, list[dict[str, Any]]]:
    case = golden.settings(name)
    settings = case["settings"]
    editor = cast(
        Grace,
        make_editor(
            "grace",
            {
                "epsilon": settings["eps"],
                "steps": settings["n_iter"],
                "lr": settings["edit_lr"],
                "replacement": settings["replacement"].removeprefix("replace_"),
                "part": "mlp_in",
                "initial": settings["val_init"],
                "expand": settings["eps_expand"],
                "value_seed": 0,
                "protocol": "code",
            },
        ),
    )
    closing = all(edit["labels"][-1] == -100 for edit in case["edits"])
    query = "answer_start" if closing else "prompt_end"
    return editor, f"grace:{case['layer']}:{editor.replacement}:{query}", case["edits"]


@pytest.mark.case("grace_prompt12", "grace_last12", "grace_all12")
def test_grace(golden: Golden, case: str) -> None:
    lm, arrays, settings = golden.load(), golden.arrays(case), golden.settings(case)
    editor, name, edits = grace_edits(golden, case)
    split = []
    for edit in edits:
        answer = [i for i, label in enumerate(edit["labels"]) if label != -100]
        ids = tuple(edit["input_ids"])
        split.append((ids[: answer[0]], ids[answer[0] : answer[-1] + 1], edit["labels"][-1] == -100))
    for number, (head, tail, closing) in enumerate(split):
        cold = arrays["value_init"][number] if editor.initial == "cold" else None
        label = editor.label(head, tail, closing=closing)
        branch, changes, losses = editor.edit_ids(lm, name, head, tail, label, cold)
        expected = settings["branches"][number]
        assert branch == expected["branch"], number
        for change in changes:
            lm.patches.apply(change)
        book = lm.patches[name]
        assert isinstance(book, Codebook) and book.size == expected["n_keys"]
        for column, value in book_of(arrays, number).items():
            assert relative(book.table(column), value) <= GRACE_TOLERANCE, (number, column)
        assert relative(torch.tensor(losses), arrays["losses"][number]) <= 1e-6, number
    logits = []
    for (head, tail, _), edit in zip(split, edits, strict=True):
        rows = lm.answer_rows([head], [tail])
        with torch.no_grad():
            logits.append(lm.answer_logits(rows))
        states = query_of(lm, lm.patches[name], rows)
        index, inside = cast(Codebook, lm.patches[name]).inside(states)
        assert (int(index), bool(inside)) == (edit["chosen_key"], edit["inside"]), edit["prompt"]
    assert relative(torch.cat(logits), arrays["logits_edited"]) <= GRACE_TOLERANCE
    others = []
    for prompt in settings["unedited"]:
        answer = [i for i, label in enumerate(prompt["labels"]) if label != -100]
        ids = tuple(prompt["input_ids"])
        rows = lm.answer_rows([ids[: answer[0]]], [ids[answer[0] : answer[-1] + 1]])
        with torch.no_grad():
            others.append(lm.answer_logits(rows)[:1])
    assert relative(torch.cat(others), arrays["logits_unedited_prompts"]) <= GRACE_TOLERANCE


def query_of(lm: Any, book: Any, rows: Any) -> Tensor:
    found: list[Tensor] = []
    where = book.where(rows.heads, rows.inputs.ids.shape[1])
    module = lm.model.get_submodule(book.module)
    handle = module.register_forward_hook(lambda _m, args, _o: found.append(args[0][:, where.query[0]]))
    with torch.no_grad():
        lm.forward(rows.inputs)
    handle.remove()
    return found[0]
