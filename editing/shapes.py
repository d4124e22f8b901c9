"""Whether an editor can work on some layers of a model, and on batches of a size.  Needs no torch."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Limits(Protocol):
    """What an editor can take at once."""

    @property
    def max_layers(self) -> int | None: ...
    @property
    def max_batch(self) -> int | None: ...


def absent_layers(layers: Sequence[int], n_layers: int, model: str) -> str | None:
    """Return which layers a model does not have; None if it has all of them, and there are some."""
    wrong = [layer for layer in layers if not 0 <= layer < n_layers]
    if layers and not wrong:
        return None
    return f"no layers {wrong or list(layers)} in {model}; expected layers from 0 to {n_layers - 1}"


def unordered_layers(layers: Sequence[int]) -> str | None:
    """Return what is wrong with the order of layers; None if nothing is."""
    if list(layers) == sorted(set(layers)):
        return None
    return f"found {list(layers)}; expected ascending layers, each once (the last holds the target)"


def too_many_layers(name: str, limits: Limits, layers: Sequence[int]) -> str | None:
    """Return that an editor takes fewer layers; None if it takes as many."""
    if limits.max_layers is None or len(layers) <= limits.max_layers:
        return None
    return f"{name} edits {limits.max_layers} layer at a time, found {list(layers)}"


def too_large_batch(name: str, limits: Limits, batch_size: int) -> str | None:
    """Return that an editor takes smaller batches; None if it takes such ones."""
    if limits.max_batch is None or batch_size <= limits.max_batch:
        return None
    return f"{name} edits {limits.max_batch} fact at a time, found batch size {batch_size}"


def refused_layers(name: str, refusal: Callable[[int], str | None], layers: Sequence[int], model: str) -> str | None:
    """Return why an editor cannot edit so many layers of a model; None if it can.

    Args:
        refusal: What the editor says of a number of layers in a model of this family.
    """
    why = refusal(len(layers))
    return None if why is None else f"{name} cannot edit layers {list(layers)} of {model}: {why}"
