"""Hyper-parameters: presets, ablations, models known by name."""

import pytest

from editing.hparams import editor_names, preset_names, resolve_hparams
from editing.methods.editor import make_editor


def test_every_preset_can_be_made() -> None:
    for name in editor_names():
        for preset in preset_names(name):
            protocol = "corrected"
            assert make_editor(name, resolve_hparams(name, model="x", protocol=protocol, preset=preset)).version


def test_a_model_is_known_by_its_last_part_and_a_preset_takes_its_place() -> None:
    for model in ("EleutherAI/gpt-j-6b", "EleutherAI/gpt-j-6B", "gpt-j-6b"):
        assert resolve_hparams("memit", model=model)["preservation_weight"] == 15000.0, model
    chosen = resolve_hparams("memit", model="meta-llama/Meta-Llama-3-8B", preset="llama3-encore")
    assert chosen["lr"] == 0.5 and resolve_hparams("memit", model="Meta-Llama-3-8B")["lr"] == 0.1
    code = resolve_hparams("emmet", model="x", protocol="code", preset="llama2-unified-23d72b5")
    assert make_editor("emmet", code).ridge_for(16) == pytest.approx(0.1)


def test_an_ablation_changes_one_number_and_leaves_the_models_others() -> None:
    plain = resolve_hparams("malmen", model="factworld-gpt2")
    ablated = resolve_hparams("malmen", model="factworld-gpt2", preset="sum-of-shifts")
    assert {key for key in plain if plain[key] != ablated[key]} == {"aggregate"}
    other = resolve_hparams("malmen", model="factworld-gpt2", preset="t5-xl-config")
    assert other["rank"] == 1920, "a preset is one source's numbers, not this model's"
    memit, control = (
        resolve_hparams(name, model="gpt-j-6b", preset="llama3-alphaedit") for name in ("memit", "random_direction")
    )
    assert control == memit | {"direction_seed": 0}
