"""Targets that an experiment file gives in place of a search: its part of the plan."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.spec import EditorSpec
from storage.store import Store
from tasks.data.model_files import edited_shape
from tasks.errors import InputError
from tasks.specs.editor_card import EditorCard, target_definition
from tasks.specs.recipes import GivenTargets
from tasks.units.given_targets import Arrays, publish_targets, read_targets, recipe_of

if TYPE_CHECKING:
    from flows.inputs import Inputs


def given_targets(spec: EditorSpec, inputs: "Inputs", card: EditorCard, layers: tuple[int, ...]) -> GivenTargets | None:
    """Return what an editor's given targets are; None if it searches for its own.

    Raises:
        InputError: It takes none, or they are not all there.
    """
    if spec.targets is None:
        return None
    definition = target_definition(card.name, card.hparams, inputs.model.family)
    if definition is None or definition["site"] != "block":
        raise InputError(
            f"targets: {card.name} searches for no target at a block's output; expected an editor that does (memit, emmet, "
            "alphaedit), or leave targets out"
        )
    if not layers:
        raise InputError("targets: they belong to one layer; give layers as numbers, as layers: [[3, 4, 5]]")
    targets = _read(spec, inputs, layers[-1])
    needed = _facts_needed(inputs)
    if missing := [fact for fact in needed if fact not in targets]:
        raise InputError(
            f"targets: {spec.targets} has none at layer {layers[-1]} of {len(missing)} of {len(needed)} facts, the first "
            f"{missing[0]!r}; give them all, or fewer facts (facts.size, facts.order)"
        )
    return recipe_of(targets, layers[-1])


def publish_given_targets(inputs: "Inputs", store: Store) -> None:
    """Write the targets that an experiment gives to its store."""
    experiment = inputs.experiment
    for spec in (each for each in experiment.editors if each.targets is not None):
        for layers in spec.layers if spec.layers is not None else experiment.layers or ():
            last = layers[-1] if isinstance(layers, list) else int(layers)
            targets = _read(spec, inputs, last)
            publish_targets(store, targets, recipe_of(targets, last))


def _read(spec: EditorSpec, inputs: "Inputs", layer: int) -> Arrays:
    width, _ = edited_shape(inputs.model)
    ids = [request.request_id for request in inputs.requests]
    return read_targets(Path(str(spec.targets)), ids, layer=layer, width=width)


def _facts_needed(inputs: "Inputs") -> list[str]:
    """Return the facts that some sample edits; none as long as the model is still to be asked which it knows."""

    def numbers() -> Iterator[int]:
        for order in inputs.orders if inputs.is_asked else ():
            yield from order.positions[: inputs.size]

    return [inputs.requests[number].request_id for number in dict.fromkeys(numbers())]
