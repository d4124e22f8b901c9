"""An editor with its hyper-parameters, as a plan sees it: what it needs, what it can edit, and what it leaves open.

The editor itself says all of this; what it has said is remembered, so that a plan need not load it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from editing.errors import HparamsError, did_you_mean
from editing.hparams import borrowed_from, default_layers, editor_names, is_variant, preset_names, resolve_hparams
from editing.model.families import FAMILIES
from editing.shapes import absent_layers, refused_layers, too_large_batch, too_many_layers, unordered_layers
from tasks.cache import remembered

_MANY = 10_000
"""More layers than any model has."""


class Training(NamedTuple):
    """The training of a hyper-network."""

    steps: int
    edits: int
    """Facts that one step edits jointly."""


@dataclass(frozen=True, kw_only=True)
class EditorCard:
    """An editor with its hyper-parameters for one model, checked."""

    name: str
    version: int
    needs: frozenset[str]
    max_batch: int | None
    max_layers: int | None
    hparams: Mapping[str, Any]
    carried: Mapping[str, Any]
    """Hyper-parameters by which something passes from batch to batch."""
    unsettled: str | None
    """What it leaves to the machine that results depend on; such an editor cannot be run."""
    sampling: Mapping[str, Any] | None
    """How its context prefixes are sampled."""
    seeds: Sequence[str] = ()
    """Hyper-parameters that are seeds of what is random in it."""
    preset: str | None = None
    context_texts: tuple[str, ...] | None = None
    """Context prefixes that are given, in place of sampled ones."""

    @property
    def is_random(self) -> bool:
        """Whether runs that differ only in their seed differ at all."""
        samples = self.sampling is not None and self.context_texts is None and self.sampling["contexts"] > 0
        return bool(self.seeds) or samples

    def seeded(self, seed: int) -> "EditorCard":
        """Return the card with a run's seed in the place of its own."""
        return replace(self, hparams={**self.hparams, **dict.fromkeys(self.seeds, seed)})

    def layers_problem(self, family: str, layers: Sequence[int], model: str) -> str | None:
        """Return why the editor cannot edit these layers of a model; None if it can."""
        if (why := too_many_layers(self.name, self, layers)) is not None:
            return f"{why}; write layers: [{layers[-1]}] for one layer, [[0, 1]] for two at once"
        return refused_layers(self.name, lambda count: self.refusal(family, count), layers, model)

    def batch_problem(self, batch_size: int) -> str | None:
        """Return why the editor cannot edit batches of this size; None if it can."""
        why = too_large_batch(self.name, self, batch_size)
        return None if why is None else f"{why}; give it batch_sizes: [{self.max_batch}]"

    def refusal(self, family: str, n_layers: int) -> str | None:
        """Return why the editor cannot edit ``n_layers`` layers of a model of this family; None if it can."""

        def ask() -> str | None:
            from editing.methods.editor import editor_class

            found: str | None = editor_class(self.name).refusal(FAMILIES[family], n_layers)
            return found

        found: str | None = remembered("editors", ["refusal", self.name, family, n_layers], ask)
        return found


def layers_problem(layers: Sequence[int], n_layers: int, model: str) -> str | None:
    """Return what is wrong with layers, whatever edits them; None if nothing is."""
    return absent_layers(layers, n_layers, model) or unordered_layers(layers)


def known_editors() -> list[str]:
    """Return the names of all editors."""
    return editor_names()


def suggested_layers(name: str, model: str, n_layers: int | None) -> tuple[list[int] | None, str]:
    """Return the layers that an editor's sources edit in a model, and where they come from; None where nobody knows.

    Args:
        n_layers: Of the model; None where it is not on this machine.
    """
    layers, why = default_layers(name, model=model, n_layers=n_layers or _MANY)
    return (None, why) if n_layers is None and why.startswith("no source") else (layers, why)


def hparams_problem(
    name: str, model: str, protocol: str, overrides: Mapping[str, Any], preset: str | None
) -> str | None:
    """Return what is wrong with an editor's name, preset or hyper-parameters; None if nothing is."""
    try:
        resolve_hparams(name, model=model, protocol=protocol, overrides=overrides, preset=preset)
    except HparamsError as error:
        return str(error)
    return None


def training_of(name: str, hparams: Mapping[str, Any], batch_size: int) -> Training | None:
    """Return how long an editor's network is trained, and for how many joint edits; None if it has none."""

    def ask() -> Any:
        from editing.methods.editor import make_editor

        return make_editor(name, hparams).training(batch_size)

    found = remembered("editors", ["training", name, dict(hparams), batch_size], ask)
    return None if found is None else Training(*found)


def editor_card(
    name: str, *, model: str, protocol: str, overrides: Mapping[str, Any], preset: str | None = None
) -> EditorCard:
    """Return an editor's card.

    Raises:
        HparamsError: An unknown editor, preset or hyper-parameter, or an impossible value.
    """
    hparams = resolve_hparams(name, model=model, protocol=protocol, overrides=overrides, preset=preset)

    def ask() -> dict[str, Any]:
        from editing.methods.editor import make_editor

        made = make_editor(name, hparams)
        return {
            "version": made.version,
            "needs": sorted(made.needed()),
            "max_batch": made.max_batch,
            "max_layers": made.max_layers,
            "carried": dict(made.carried()),
            "unsettled": made.unsettled(),
            "sampling": made.sampling(),
            "seeds": list(made.seeds()),
        }

    found = remembered("editors", ["card", name, hparams], ask)
    return EditorCard(name=name, hparams=hparams, preset=preset, **found | {"needs": frozenset(found["needs"])})


def borrowed_hparams(name: str, model: str, preset: str | None) -> str | None:
    """Return a warning where an editor's numbers for a model were made for another one that it is no variant of."""
    row = borrowed_from(name, model=model, preset=preset)
    if row is None or is_variant(model, row):
        return None
    return (
        f"{name} has no hyper-parameters of its own for {model}: it takes those of {row}, which were found for that one; "
        "give them beside the editor's name, or name a preset (palimpsest list editors)"
    )


def inherited_hparams(name: str, model: str, preset: str | None) -> str | None:
    """Return whose numbers an editor takes for a chat or size variant of a model."""
    row = borrowed_from(name, model=model, preset=preset)
    return f"{name} takes the hyper-parameters of {row} for {model}" if row and is_variant(model, row) else None


def editor_rows() -> list[dict[str, Any]]:
    """Return a row per editor: its defaults, and the names of its presets."""
    found = {name: resolve_hparams(name, model="") for name in editor_names()}
    return [
        {
            "editor": name,
            "hyper-parameters (defaults)": str({key: value for key, value in hparams.items() if key != "protocol"}),
            "presets": ", ".join(preset_names(name)) or "–",
        }
        for name, hparams in found.items()
    ]


def editor_needs(name: str) -> frozenset[str]:
    """Return what an editor needs besides a model and facts, whatever its hyper-parameters."""
    return frozenset(_of_class(name)["needs"])


def writes_weights(name: str) -> bool:
    """Return whether an editor changes weights, or tables beside them, at all."""
    return bool(_of_class(name)["writes"] != "nothing")


def predicts(name: str) -> bool:
    """Return whether an editor says of each edit what it will do before it is written."""
    return bool(_of_class(name)["predicts"])


def ledger_floats(name: str, n_edits: int, d_out: int, d_in: int) -> int:
    """Return about how many numbers one round of an editor adds to the ledger per layer."""
    dense = d_out * d_in
    per_round: dict[str, int] = {"dense": dense, "low_rank": min(dense, n_edits * (d_out + d_in)), "nothing": 0}
    return per_round[_of_class(name)["writes"]]


def target_definition(name: str, hparams: Mapping[str, Any], family: str) -> dict[str, Any] | None:
    """Return what determines an editor's targets beside model, facts, contexts and layers; None if it searches for none."""

    def ask() -> dict[str, Any] | None:
        from editing.methods.editor import make_editor

        return make_editor(name, hparams).target_definition(FAMILIES[family])

    found: dict[str, Any] | None = remembered("editors", ["targets", name, dict(hparams), family], ask)
    return found


def _of_class(name: str) -> dict[str, Any]:
    if name not in editor_names():
        raise HparamsError(f"no editor {name!r}{did_you_mean(name, editor_names())}; expected one of {editor_names()}")

    def ask() -> dict[str, Any]:
        from editing.methods.editor import editor_class

        cls = editor_class(name)
        return {"needs": sorted(cls.needs), "writes": cls.writes, "predicts": cls.predicts}

    found: dict[str, Any] = remembered("editors", ["class", name], ask)
    return found
