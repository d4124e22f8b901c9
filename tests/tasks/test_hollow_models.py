"""A model whose weights are not here is planned by its config and tokenizer, as if they were."""

import json
import math
import shutil
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editing.model.bundled import bundled_folder
from flows.cli import app
from tasks.data.hollow_models import hollow_folder
from tasks.data.model_files import edited_shape, resolve_model, weight_bytes
from tasks.errors import InputError
from tests.end_to_end.support import ROOT

NAMES = ("factworld-tiny", "factworld-gpt2", "factworld-llama")


def folder_of(name: str) -> Path:
    found = bundled_folder(name)
    assert found is not None
    return found


def without_its_weights(name: str, folder: Path) -> Path:
    """Return a folder with a bundled model's config and tokenizer."""
    return Path(shutil.copytree(folder_of(name), folder / name, ignore=shutil.ignore_patterns("*.safetensors")))


def shapes(folder: Path) -> dict[str, list[int]]:
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return {name: part["shape"] for name, part in header.items() if name != "__metadata__"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_shapes_of_the_real_one(name: str, tmp_path: Path) -> None:
    bare = without_its_weights(name, tmp_path)
    hollow = Path(hollow_folder(str(bare)))
    assert hollow.name == name, "hyper-parameters are found by it"
    assert shapes(hollow) == shapes(folder_of(name))
    real, made = resolve_model(name), resolve_model(str(hollow))
    assert made.digest != real.digest
    assert (made.n_layers, made.family, made.dtype) == (real.n_layers, real.family, real.dtype)
    assert edited_shape(made) == edited_shape(real)
    numbers = sum(math.prod(shape) for shape in shapes(hollow).values())
    assert weight_bytes(made) == pytest.approx(4 * numbers, rel=0.01), (
        "bundled files are of 16 bits, and their config of 32"
    )
    assert hollow_folder(str(bare)) == str(hollow), "it is made once"
    assert (hollow / "model.safetensors").stat().st_blocks * 512 < 1e6, "it takes no room"


def test_one_whose_weights_are_here_stands_for_itself(tmp_path: Path) -> None:
    for name in ("factworld-tiny", "smollm2-135m", str(folder_of("factworld-tiny"))):
        assert hollow_folder(name) == name
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no config.json; expected one, with the tokenizer's files beside it"):
        hollow_folder(str(tmp_path / "empty"))


def test_a_plan_without_weights_costs_the_same_and_names_no_run(tmp_path: Path) -> None:
    bare = without_its_weights("factworld-gpt2", tmp_path)

    def planned(model: Path | str, *options: str) -> list[str]:
        demo = str(ROOT / "flows/experiments/demo.yaml")
        store = ("--store", str(tmp_path / "store"))
        done = CliRunner().invoke(app, ["plan", demo, "--set", f"model={model}", "--device", "h200", *store, *options])
        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    real, hollow = planned("factworld-gpt2"), planned(bare, "--no-weights")
    costs = [
        [line for line in said if line.split()[:1] in (["editing"], ["scoring"], ["all"])] for said in (real, hollow)
    ]
    assert costs[0] == costs[1] and len(costs[0]) == 3
    assert any(line.startswith("memit-b5-") for line in real) and not any("memit-b5-" in line for line in hollow)
    assert any("planned by its config.json; its weights are not looked at" in line for line in hollow)
