"""Golden cases: arrays made by the official implementations, in any directory of the layout of ``golden/README.md``."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from editing.measure.moments import collect_moments
from editing.methods.geometry import KeyGeometry
from editing.model.lm import LanguageModel
from editing.requests import EditRequest

BUNDLED = Path(__file__).parent / "golden"
# HF's Llama computes RMSNorm and rotary embeddings in float32 even in a float64 model.
STATE_TOLERANCE = {"gpt2": 1e-10, "llama": 1e-6}
UPDATE_TOLERANCE = {"gpt2": 1e-10, "llama": 1e-5}


@dataclass(frozen=True)
class Golden:
    """The golden cases of one architecture."""

    folder: Path

    @property
    def arch(self) -> str:
        return self.folder.name

    def has(self, case: str) -> bool:
        return (self.folder / f"{case}.safetensors").exists()

    def arrays(self, case: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{case}.safetensors")

    def settings(self, case: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{case}.json").read_text())

    def load(self, dtype: torch.dtype = torch.float64) -> LanguageModel:
        config = AutoConfig.from_pretrained(self.folder)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        missing = model.load_state_dict(load_file(self.folder / "model.safetensors"), strict=False).missing_keys
        assert set(missing) <= {"lm_head.weight"}, missing
        model.tie_weights()
        end = "<|endoftext|>"
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_file(str(self.folder / "tokenizer.json")),
            bos_token=end,
            eos_token=end,
            pad_token=end,
        )
        return LanguageModel(model.to(dtype), tokenizer, name=f"golden-{self.arch}")

    def requests(self) -> list[EditRequest]:
        found = json.loads((self.folder / "requests.json").read_text())["requests"]
        return [
            EditRequest(
                request_id=str(r["case_id"]),
                template=r["prompt"],
                subject=r["subject"],
                target_new=r["target_new"],
                target_true=r["target_true"],
                paraphrase_prompts=tuple(r["paraphrase_prompts"]),
                neighborhood_prompts=tuple(r["neighborhood_prompts"]),
            )
            for r in found
        ]

    def contexts(self) -> tuple[str, ...]:
        templates = json.loads((self.folder / "requests.json").read_text())["context_templates_rome"]
        return tuple(template.removesuffix("{}") for template in templates)

    def geometry(self) -> dict[int, KeyGeometry]:
        return _geometry(self)


@lru_cache
def _geometry(golden: Golden) -> dict[int, KeyGeometry]:
    if golden.has("cov"):
        found = {int(name.removeprefix("C_")): c for name, c in golden.arrays("cov").items()}
    else:
        lm = golden.load()
        moments = collect_moments(lm, golden.settings("cov")["texts"], range(lm.n_layers))
        found = {layer: moment.matrix for layer, moment in moments.items()}
    return {layer: KeyGeometry.of(c) for layer, c in found.items()}


def golden_folder(config: pytest.Config) -> Path:
    given = config.getoption("--golden")
    if given is None:
        return BUNDLED
    if not list(given.glob("*/requests.json")):
        raise pytest.UsageError(
            f"--golden {given}: no golden cases there; expected a directory with ARCH/requests.json, ARCH/model.safetensors ..."
        )
    return given


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every parity test once per architecture and case that is there; a case marker names its cases."""
    if "golden" not in metafunc.fixturenames:
        return
    cases = next(metafunc.definition.iter_markers("case")).args
    folders = sorted(path.parent for path in golden_folder(metafunc.config).glob("*/requests.json"))
    chosen = [(Golden(folder), case) for folder in folders for case in cases if (folder / f"{case}.json").exists()]
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("golden", "case"), chosen, ids=[f"{golden.arch}-{case}" for golden, case in chosen])
    else:
        metafunc.parametrize("golden", [golden for golden, _ in chosen], ids=lambda golden: golden.arch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases that the directory does not hold (pytest would show them as skipped)."""
    absent = [item for item in items if any("empty parameter set" in str(m.kwargs) for m in item.iter_markers("skip"))]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(*names): the golden cases a parity test runs on")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative Frobenius error; NaN in different places counts as infinite."""
    found, expected = found.double(), expected.double()
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if not torch.equal(found.isnan(), expected.isnan()):
        return float("inf")
    found, expected = found.nan_to_num(), expected.nan_to_num()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-300))
