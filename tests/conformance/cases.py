"""Every editor on every family, with settings small enough for random models, and what is refused and why."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from editing.hparams import editor_names, resolve_hparams
from editing.measure.moments import collect_moments
from editing.methods.editor import Artifacts, Editor, editor_class, make_editor
from editing.methods.geometry import KeyGeometry
from editing.methods.trained import TrainedEditor
from editing.model.families import FAMILIES
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from tests.editing.tiny import random_lm, requests, texts

CONTEXTS = ("", "It rained all day. ", "They closed the shop early. ")
_TARGETS = {"steps": 4, "lr": 0.3, "clamp": 4.0}
_NETWORK = {"rank": 8, "lr": 0.01, "steps": 1, "edits": 2}
SMALL: dict[str, dict[str, Any]] = {
    "rome": _TARGETS,
    "memit": _TARGETS | {"preservation_weight": 5.0},
    "emmet": _TARGETS,
    "alphaedit": _TARGETS | {"null_threshold": 1e6, "ridge": 5.0},
    "random_direction": _TARGETS | {"preservation_weight": 5.0},
    "ft": {"steps": 3, "lr": 0.01},
    "ft_c": {"steps": 3, "lr": 0.01, "bound": 0.02},
    "malmen": _NETWORK,
    "mend": _NETWORK,
    "ultraedit": {"lr": 0.01},
    "grace": {"steps": 8, "initial": "warm"},
    "in_context": {},
    "no_op": {},
}
assert set(SMALL) == set(editor_names()), "every editor is tested"
DTYPES = (torch.float32, torch.bfloat16)
CONTROLS = ("no_op", "random_direction")


def batch_size(name: str) -> int:
    return editor_class(name).max_batch or 3


def layers_for(name: str, family: str, n_layers: int = 2) -> list[int]:
    """Return two layers where the editor takes as many, one in each stack of an encoder-decoder."""
    limit = editor_class(name).max_layers or n_layers
    if editor_class(name).refusal(FAMILIES[family], 2) is not None:
        limit = 1
    return [1, 2][-limit:] if limit < 2 else [1, 2]


def edits_of(family: str, count: int, start: int = 0) -> list[EditRequest]:
    """Return requests; a classifier's answers are its classes."""
    found = requests(start + count)[start:]
    if FAMILIES[family].head != "classifier":
        return found
    labels = ("true", "false")
    return [
        EditRequest(
            request_id=r.request_id,
            template=r.template,
            subject=r.subject,
            target_new=labels[i % 2],
            target_true=labels[1 - i % 2],
            paraphrase_prompts=r.paraphrase_prompts,
            neighborhood_prompts=r.neighborhood_prompts,
        )
        for i, r in enumerate(found)
    ]


@lru_cache(maxsize=4)
def model(family: str, dtype: torch.dtype) -> LanguageModel:
    # Weights of HF's own scale: with large ones, a random bfloat16 model amplifies rounding beyond use.
    return random_lm(family, dtype=dtype, std=0.1)


def method(name: str, protocol: str = "corrected", **changes: Any) -> Editor:
    return make_editor(name, resolve_hparams(name, model="x", protocol=protocol, overrides=SMALL[name] | changes))


@lru_cache(maxsize=64)
def _geometry(family: str, dtype: torch.dtype, layer: int) -> KeyGeometry:
    moment = collect_moments(model(family, dtype), texts(), [layer])[layer]
    return KeyGeometry.of(moment.matrix, jitter=1e-4)


def artifacts(name: str, family: str, dtype: torch.dtype, layers: Sequence[int]) -> Artifacts:
    """Return what the editor needs, on the pristine model."""
    editor, lm = method(name), model(family, dtype)
    networks = None
    if isinstance(editor, TrainedEditor):
        stored = torch.promote_types(dtype, torch.float32)
        networks = editor.untrained(lm, layers).to(dtype=stored).requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        for net in networks.nets.values():  # statistics of unit scale, and networks that are not the identity
            net.normalizer.n.fill_(100)
            net.normalizer.var.fill_(99)
            net.normalizer.std.fill_(1)
            for block in net.blocks:
                block.B.copy_(0.1 * torch.randn(block.B.shape, generator=generator))
    geometry = {}
    if "second_moment" in editor.needed():
        geometry = {layer: _geometry(family, dtype, layer) for layer in layers}
    return Artifacts(geometry=geometry, contexts=CONTEXTS, networks=networks)


def state_of(lm: LanguageModel) -> dict[str, Any]:
    """Everything that an edit may change: every parameter as precise as it is kept, and every patch."""
    patches = {p.name: {c: [r.clone() for r in rows] for c, rows in p.columns.items()} for p in lm.patches.all()}
    return {"weights": lm.snapshot([name for name, _ in lm.model.named_parameters()]), "patches": patches}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states are equal bit by bit, dtypes included."""
    if one["weights"].keys() != other["weights"].keys() or one["patches"].keys() != other["patches"].keys():
        return False
    weights = all(_equal(value, other["weights"][name]) for name, value in one["weights"].items())
    return weights and all(
        columns.keys() == other["patches"][name].keys()
        and all(
            len(rows) == len(other["patches"][name][c]) and all(map(_equal, rows, other["patches"][name][c]))
            for c, rows in columns.items()
        )
        for name, columns in one["patches"].items()
    )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
