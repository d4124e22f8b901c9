"""A store's second moments, targets and prefixes as the files that official code looks for (ROME, MEMIT, AlphaEdit)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load, load_file

from editing.measure.moments import SecondMoment
from editing.model.families import FAMILIES
from storage.artifacts import artifact_recipes, find_artifact
from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import Recipe
from tasks.specs.run import RunSpec
from tasks.specs.stored_run import of_json
from tasks.units.contexts import export_contexts
from tasks.units.given_targets import as_file_name
from tasks.units.moments import MOMENTS
from tasks.units.targets import TARGETS


def export_moments(store: Store, out: Path) -> list[dict[str, Any]]:
    """Write every stored second moment where official ``layer_stats`` looks for it, with its recipe; return what was written.

    That is ``MODEL/TEXTS_stats/MODULE_float32_mom2_N.npz`` below its folder of statistics; ``TEXTS`` and ``N`` are
    ``mom2_dataset`` and ``mom2_n_samples`` of its hyper-parameters, and ``N`` must stand in the file as ``sample_size``.

    Raises:
        InputError: The store holds none.
    """
    runs, rows = _runs(store), []
    for recipe in sorted(artifact_recipes(store, MOMENTS), key=repr):
        artifact = find_artifact(store, MOMENTS, recipe)
        assert artifact is not None, "its recipe was just listed"
        n_tokens = int(json.loads(artifact.path("moment.json").read_text())["n_tokens"])
        moment = SecondMoment(load_file(artifact.path("moment.safetensors"))["moment"], n_tokens)
        texts = recipe["texts"]
        n_texts, layer = texts.get("n_texts", -1), recipe["layer"]
        name = f"{_module(runs, recipe, layer)}_float32_mom2_{n_texts}"
        folder = _free(out / _model(runs, recipe) / f"{texts['name']}_stats", f"{name}.npz", recipe)
        folder.mkdir(parents=True, exist_ok=True)
        moment.write_npz(folder / f"{name}.npz", sample_size=n_texts)
        (folder / f"{name}.json").write_text(json.dumps(recipe, indent=1))
        dataset = folder.name.removesuffix("_stats")
        rows.append(
            {
                "file": str(folder / f"{name}.npz"),
                "layer": layer,
                "tokens": n_tokens,
                "mom2_dataset": dataset,
                "mom2_n_samples": n_texts,
            }
        )
    if not rows:
        raise InputError(
            f"the store {store.location} holds no second moments; run an experiment whose editors need them"
        )
    return rows


def export_targets(store: Store, out: Path) -> list[dict[str, Any]]:
    """Write every stored target as official MEMIT caches it, a file of ``v_star`` for each fact; return what was written.

    That is ``MODEL_MEMIT/DATA_layer_L_clamp_C_case_ID.npz``, which its ``cache_template`` names.  Targets at the MLP's own
    output (ROME's) have no such files there, and are left out.

    Raises:
        InputError: The store holds none.
    """
    runs, rows = _runs(store), []
    taken: dict[tuple[Path, str], str] = {}
    for recipe in sorted(artifact_recipes(store, TARGETS), key=repr):
        if recipe["definition"]["site"] != "block":
            continue
        artifact = find_artifact(store, TARGETS, recipe)
        assert artifact is not None, "its recipe was just listed"
        tensors = load(artifact.path("targets.safetensors").read_bytes())
        ids = json.loads(artifact.path("facts.json").read_text())
        data = next((run.facts.name for run in runs.values() if run.facts.digest == recipe["facts"]), "facts")
        clamp = recipe["definition"]["clamp"]
        for layer in recipe["layers"]:
            value = (tensors[f"{layer}.initial"] + tensors[f"{layer}.delta"]).float().numpy()
            begins = f"{data}_layer_{layer}_clamp_{clamp}_case_"
            names = [f"{begins}{as_file_name(case)}.npz" for case in ids]
            how = digest_of({name: part for name, part in recipe.items() if name not in ("positions", "layers")})
            folder = out / f"{_model(runs, recipe)}_MEMIT"
            if taken.setdefault((folder, begins), how) != how:  # another search's targets of such facts
                folder = _apart(folder, how)
            folder.mkdir(parents=True, exist_ok=True)
            for name, row in zip(names, value, strict=True):
                np.savez(folder / name, v_star=row)
            template = str(folder / f"{data}_layer_{{}}_clamp_{{}}_case_{{}}.npz")
            rows.append({"cache_template": template, "layer": layer, "clamp": clamp, "facts": len(ids)})
    if not rows:
        raise InputError(
            f"the store {store.location} holds no targets of MEMIT, EMMET or AlphaEdit; kept are those that runs share: of "
            "mode: independent with several batch sizes or editors, and of a layer search with one of these "
            "(locate.search.editor: memit); ROME's stand at another place, and official code reads no files of them"
        )
    return rows


OFFICIAL = {"targets": export_targets, "moments": export_moments, "contexts": export_contexts}
"""What official code reads, by name."""


def _runs(store: Store) -> dict[str, RunSpec]:
    """Return a run of each model and data set, from which both have their names."""
    specs = query(
        store, "SELECT any_value(spec) AS spec FROM runs GROUP BY spec->>'$.model.digest', spec->>'$.facts.digest'"
    )
    runs = [of_json(row["spec"]) for row in specs.to_pylist()]
    return {run.run_id: run for run in runs}


def _model_of(runs: Mapping[str, RunSpec], recipe: Recipe) -> Any:
    return next((run.model for run in runs.values() if run.model.digest == recipe["model"]), None)


def _model(runs: Mapping[str, RunSpec], recipe: Recipe) -> str:
    """Return a model's name as official code has it: the last part."""
    found = _model_of(runs, recipe)
    return str(recipe["model"])[:10] if found is None else Path(found.name).name


def _module(runs: Mapping[str, RunSpec], recipe: Recipe, layer: int) -> str:
    """Return the module whose input the keys are, as ``model.layers.5.mlp.down_proj``."""
    found = _model_of(runs, recipe)
    stacks = FAMILIES[found.family].stacks if found is not None else ()
    return f"{stacks[0].blocks}.{layer}.{stacks[0].mlp_out}" if len(stacks) == 1 else f"layer.{layer}"


def _free(folder: Path, file: str, recipe: Recipe) -> Path:
    """Return the folder, or one that bears the recipe's digest if another recipe's file of this name is there already."""
    if not (folder / file).exists():
        return folder
    return _apart(folder, digest_of(recipe))


def _apart(folder: Path, digest: str) -> Path:
    head, mark, tail = folder.name.rpartition("_")
    return folder.with_name(f"{head}-{digest[:6]}{mark}{tail}")
