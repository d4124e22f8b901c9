"""A run's description as its first commit holds it, and as it is read again by later versions of this code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from tasks.specs.execution import Compute, Execution, SharedTargets
from tasks.specs.run import FactsRef, LayersFrom, ModelRef, RunSpec, Trajectory
from tasks.specs.scoring import BenchmarkRef, Scoring

VERSION = 2
"""1, which has no number, held generation and perplexity apart and no other scores."""
_RECIPES = {"contexts": "contexts_recipe", "moments": "moments_recipe", "network": "network_recipe"}
"""Fields of a trajectory by their names in the store, which views read."""


def to_json(run: RunSpec) -> str:
    """Return a run's description as JSON: one flat table, in which views look things up."""
    parts = (run.trajectory, run.scoring, run.execution)
    found = {_RECIPES.get(name, name): value for part in parts for name, value in asdict(part).items()}
    found |= {"experiment": run.experiment, "protocol": run.protocol, "preset": run.preset}
    found |= {"layers_recipe": asdict(run.layers_from) if run.layers_from else None, "spec_version": VERSION}
    return json.dumps(found, sort_keys=True)


def of_json(text: str) -> RunSpec:
    """Return the run that a commit describes, whichever version wrote it."""
    found = json.loads(text)
    if found.get("spec_version", 1) == 1:
        old = {name: found.get(name) for name in ("generation", "perplexity")}
        found["scores"] = {name: settings for name, settings in old.items() if settings is not None}
    found |= {name: found[stored] for name, stored in _RECIPES.items()}
    shared, chosen = found.get("shared_targets"), found["layers_recipe"]
    found |= {
        "model": _of(ModelRef, found["model"]),
        "facts": _of(FactsRef, found["facts"]),
        "layers": tuple(found["layers"]),
        "every_edits": found["every_edits"] if isinstance(found["every_edits"], int) else tuple(found["every_edits"]),
        "benchmark_edits": tuple(asked) if isinstance(asked := found.get("benchmark_edits"), list) else asked,
        "benchmarks": tuple(_of(BenchmarkRef, each) for each in found["benchmarks"]),
        "compute": _of(Compute, found["compute"]),
        "shared_targets": _of(SharedTargets, shared) if shared else None,
        "in_step": tuple(found.get("in_step") or ()),
    }
    return RunSpec(
        trajectory=_of(Trajectory, found),
        scoring=_of(Scoring, found),
        execution=_of(Execution, found),
        experiment=found["experiment"],
        protocol=found["protocol"],
        preset=found["preset"],
        layers_from=_of(LayersFrom, chosen) if chosen else None,
    )


def _of(kind: Any, found: Mapping[str, Any]) -> Any:
    """Return a dataclass from a table, which may lack fields that have a default, and have others."""
    return kind(**{each.name: found[each.name] for each in fields(kind) if each.name in found})
