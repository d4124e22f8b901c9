"""Whether a ridge fits a model's keys, as ``palimpsest plan`` says it once second moments are known."""

from collections.abc import Sequence

from storage.store import Store
from tasks.reports.warnings import LITTLE
from tasks.specs.run import RunSpec
from tasks.units.key_sizes import RIDGE, KeySizesRecord, key_size_units, key_sizes_of, ridge_of


def notes_on_ridges(store: Store | None, runs: Sequence[RunSpec]) -> list[str]:
    """Return what is said of each ridge, each once: beside the keys that were measured, or that they are still to be.

    Args:
        runs: Those that have still something to edit.
    """
    ridged = [run for run in runs if key_size_units([run])]
    found = [None if store is None else key_sizes_of(store, run) for run in ridged]
    said = [_note(run, sizes) for run, sizes in zip(ridged, found, strict=True) if sizes is not None]
    if None in found:
        said.append(f"{RIDGE}: compared with the keys (kᵀC⁻¹k) once second moments are there; plan again then")
    return list(dict.fromkeys(said))


def _note(run: RunSpec, sizes: KeySizesRecord) -> str:
    parts, least = [], 1.0
    for layer, q in zip(sizes.layers, sizes.median_q, strict=True):
        ridge = ridge_of(run, q)
        least = min(least, share := q / (ridge + q))
        parts.append(f"layer {layer} {q:.4g} (λ {ridge:.4g}, {share:.0%} arrives)")
    doubt = f"; warning: less than half arrives, give {RIDGE}: {{times_median_q: 0.25}}" if least < LITTLE else ""
    return (
        f"{run.editor}, {RIDGE}: median kᵀC⁻¹k of {sizes.n_facts} facts, each edited alone: {', '.join(parts)}{doubt}"
    )
