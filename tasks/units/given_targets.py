"""Targets that a user gives in place of a search: official MEMIT's cached ``v_star``, or an array for each fact."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from storage.artifacts import find_artifact, put_artifact
from storage.digests import digest_of, digest_of_content
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import GivenTargets

if TYPE_CHECKING:
    from torch import Tensor

GIVEN = "given targets"
_CASE = re.compile(r"_layer_(?P<layer>\d+)_clamp_.*?_case_(?P<case>.+)\.npz$")
Arrays = Mapping[str, "np.ndarray[Any, np.dtype[np.float32]]"]


def read_targets(path: Path, fact_ids: Sequence[str], *, layer: int, width: int) -> Arrays:
    """Return the targets that a file or folder holds of some facts, by their ids.

    Args:
        path: A folder of ``*_layer_L_clamp_C_case_ID.npz`` with ``v_star``, or one ``.npz`` with an array for each fact id.
        layer: Of which targets are taken from a folder.
        width: Of the model's hidden states.

    Raises:
        InputError: There are none, a fact has two, or one has another shape or NaN.
    """
    found: dict[str, Any] = {}
    wanted = {as_file_name(fact): fact for fact in fact_ids}
    try:
        if path.is_dir():
            for file in sorted(path.glob("*.npz")):
                match = _CASE.search(file.name)
                if match is None or int(match["layer"]) != layer or match["case"] not in wanted:
                    continue
                if wanted[match["case"]] in found:
                    raise InputError(
                        f"{path} holds several files for case {match['case']} of layer {layer}; expected one: keep those of "
                        "one clamp and one data set"
                    )
                with np.load(file, allow_pickle=False) as content:
                    found[wanted[match["case"]]] = content["v_star"]
        else:
            with np.load(path, allow_pickle=False) as content:
                found = {fact: content[fact] for fact in fact_ids if fact in content}
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a folder of *_layer_L_clamp_C_case_ID.npz that hold v_star (palimpsest "
            "export --to targets writes one), or one .npz with an array for each fact id"
        ) from error
    if not found:
        raise InputError(
            f"{path} holds no target at layer {layer} of any of the {len(fact_ids)} facts, whose ids are like {fact_ids[0]!r}"
        )
    for fact, array in found.items():
        if array.shape != (width,) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(
                f"{path}: the target of {fact!r} is {array.dtype} {list(array.shape)}{_broken(array)}; expected finite "
                f"numbers of shape [{width}]"
            )
    return {fact: np.ascontiguousarray(array, dtype=np.float32) for fact, array in found.items()}


def as_file_name(fact_id: str) -> str:
    """Return a fact's id as part of a file's name: itself, unless it has a slash or a percent sign."""
    return fact_id.replace("%", "%25").replace("/", "%2F")


def recipe_of(targets: Arrays, layer: int) -> GivenTargets:
    """Return what targets are: their content, fact by fact, and the layer at which they stand."""
    content = {fact: digest_of_content(array.tobytes()) for fact, array in sorted(targets.items())}
    return {"digest": digest_of(content), "layer": layer}


def publish_targets(store: Store, targets: Arrays, recipe: GivenTargets) -> None:
    """Write targets to the store, from which workers take them."""
    from io import BytesIO

    file = BytesIO()
    np.savez(file, values=np.stack(list(targets.values())))
    put_artifact(
        store, GIVEN, recipe, {"targets.npz": file.getvalue(), "facts.json": json.dumps(list(targets)).encode()}
    )


def given_targets(store: Store, recipe: GivenTargets) -> "dict[str, Tensor]":
    """Return targets [d] by fact id, as they were published.

    Raises:
        InputError: They are not there.
    """
    import torch

    found = find_artifact(store, GIVEN, recipe)
    if found is None:
        raise InputError(f"the targets {recipe['digest']} are not in {store.location}; run the experiment's file again")
    with np.load(found.path("targets.npz"), allow_pickle=False) as content:
        values = torch.from_numpy(content["values"])
    return dict(zip(json.loads(found.path("facts.json").read_text()), values, strict=True))


def _broken(array: "np.ndarray[Any, Any]") -> str:
    return "" if array.dtype.kind != "f" or np.isfinite(array).all() else " with NaN or infinity"
