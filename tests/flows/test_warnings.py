"""Hyper-parameters that were made for another model are said, or refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from editing.hparams import VARIANTS, borrowed_from, editor_names, resolve_hparams
from editing.model.bundled import bundled_folder
from flows.experiment_file import load_experiment
from flows.running import refuse_doubtful
from flows.spec_values import SpecError
from tasks.reports.warnings import warnings_of
from tasks.specs.editor_card import borrowed_hparams, inherited_hparams
from tests.flows.support import plan_of, write


def test_a_chat_or_size_variant_names_the_row_that_it_takes() -> None:
    chat = resolve_hparams("memit", model="meta-llama/Llama-2-7b-chat-hf")
    assert (
        chat == resolve_hparams("memit", model="meta-llama/Llama-2-7b-hf") != resolve_hparams("memit", model="gpt2-xl")
    )
    assert borrowed_hparams("memit", "Llama-2-7b-chat-hf", None) is None
    assert inherited_hparams("memit", "Llama-2-7b-chat-hf", None) == (
        "memit takes the hyper-parameters of meta-llama/Llama-2-7b-hf for Llama-2-7b-chat-hf"
    )


@pytest.mark.parametrize(
    ("editor", "model", "preset", "row"),
    [
        ("rome", "Qwen/Qwen3-8B", None, "gpt2-xl"),
        ("alphaedit", "meta-llama/Llama-2-7b-hf", None, "gpt2-xl"),
        ("memit", "Qwen/Qwen3-8B", "llama3-encore", None),
        ("rome", "Qwen/Qwen3-8B", "r-rome-bare", "gpt2-xl"),
        ("malmen", "Qwen/Qwen3-8B", None, None),
        ("rome", "/models/GPT2-XL", None, None),
        ("no_op", "anything", None, None),
    ],
)
def test_whose_numbers_a_model_takes(editor: str, model: str, preset: str | None, row: str | None) -> None:
    """A preset has the numbers of one source; a variant changes a few, and the others stay borrowed."""
    assert borrowed_from(editor, model=model, preset=preset) == row


def test_variants_are_of_models_that_some_sheet_has() -> None:
    for model, row in VARIANTS.items():
        assert any(borrowed_from(name, model=row) is None for name in editor_names()), model
        assert row not in VARIANTS, "one step"


def experiment(tmp_path: Path, **changes: Any) -> Path:
    model = shutil.copytree(bundled_folder("factworld-tiny"), tmp_path / "my-model")
    return write(
        tmp_path, model=str(model), editors=[{"name": "ft_c", "steps": 2}], score={"every_edits": 0}, **changes
    )


def test_a_plan_warns_and_a_strict_one_refuses_before_any_work(tmp_path: Path) -> None:
    file = experiment(tmp_path)
    plan = plan_of(load_experiment(file))
    (warning,) = plan.warnings
    assert "ft_c has no hyper-parameters of its own for" in warning and "it takes those of gpt2-xl" in warning
    with pytest.raises(SpecError, match="--strict: ft_c has no hyper-parameters of its own"):
        refuse_doubtful(plan)
    assert not (tmp_path / "store").exists()


def test_results_say_it_too() -> None:
    row = {"run_id": "grace-b1-x", "editor": "grace", "model": "my-model", "preset": None, "n_rounds": 4, "n_unchanged": 4,
           "n_nan_updates": 0, "n_unsolved": 0, "n_nan_scores": 3, "n_given_up": None}  # fmt: skip
    borrowed, never, nan = warnings_of([row])
    assert (
        "it takes those of gpt2-xl" in borrowed
        and never == "grace-b1-x: no round changed the model; its editor never fired"
    )
    assert nan == "grace-b1-x: 3 scores are NaN and count as failures"
    fine = row | {"model": "factworld-tiny", "n_unchanged": 1, "n_nan_scores": None}
    assert warnings_of([fine, row | {"editor": "no_op", "model": "factworld-tiny", "n_nan_scores": 0}]) == []


def test_results_say_where_little_of_a_change_arrives() -> None:
    row = {"run_id": "memit-b1-x", "editor": "memit", "model": "factworld-gpt2", "preset": None, "mode": "sequential"}
    counts = dict.fromkeys(("n_unchanged", "n_nan_updates", "n_unsolved", "n_nan_scores", "n_given_up"), 0)
    row |= {"n_rounds": 4, **counts, "ridge": 15000.0, "q": 4780.0, "shortfall": 0.79}
    (said,) = warnings_of([row])
    assert said.startswith(
        "memit-b1-x: 21% of each residual arrives (median): the ridge 1.5e+04 is 3.1 times the median"
    )
    assert warnings_of([row | {"shortfall": 0.3}]) == [] and warnings_of([row | {"q": None}]) == []
