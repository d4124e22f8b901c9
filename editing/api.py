"""Editing from a notebook: no pipeline, no store."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from editing.edits import Edits, Look
from editing.errors import HparamsError, ModelError, MomentError, RequestError
from editing.hparams import default_layers, resolve_hparams
from editing.measure.contexts import sample_contexts
from editing.measure.moments import SecondMoment, collect_moments
from editing.measure.own_texts import enough, own_texts
from editing.methods.editor import Artifacts, Editor, EditResult, State, editor_class, make_editor
from editing.methods.geometry import KeyGeometry
from editing.methods.hypernetwork import HyperNetworks
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.model.memory import until_it_fits
from editing.records import requests_from
from editing.requests import EditRequest
from editing.shapes import refused_layers, too_large_batch, too_many_layers, unordered_layers

__all__ = ["EditRequest", "apply", "check_shape", "edit", "load"]


def edit(
    lm: LanguageModel,
    facts: Any,
    *,
    editor: str = "memit",
    layers: Sequence[int] | int | None = None,
    moments: Mapping[int, SecondMoment] | None = None,
    texts: Sequence[str] | None = None,
    batch_size: int | None = None,
    networks: HyperNetworks | None = None,
    protocol: str = "corrected",
    preset: str | None = None,
    seed: int = 0,
    **hparams: Any,
) -> Edits:
    """Write facts into a model, in place, and return what became of each; prints as a table.

    ``with edit(lm, facts): ...`` undoes the edits at the end of the block; so does :meth:`editing.edits.Edits.undo`.  For that
    the result keeps a copy of the parameters that were edited.

    Args:
        facts: Dicts with ``prompt``, ``subject`` and ``target_new`` (``{}`` stands for the subject in the prompt, or the
            subject is found in it), records in CounterFact's layout, edit requests, or a data frame of pandas, polars or Arrow.
        editor: An editor's name, as :func:`editing.hparams.editor_names` lists them.
        layers: Edited blocks, counted from 0, in ascending order.  Unless given: those of the model's row in
            ``editing/hparams``, or as deep in the model as those of another; the result says which.
        moments: Second moments per layer, if the editor needs them.
        texts: Or texts to take them from, now.  Without both the model samples texts itself, and the result says how many.
        networks: A trained hyper-network (:class:`editing.methods.training.Trainer` has one), if the editor needs it.
        batch_size: Facts per update; all at once by default, or as many as the editor can take.
        protocol: Where papers and official code disagree: ``corrected``, ``paper`` or ``code``.
        preset: A named set of numbers of one source.
        seed: Of the context prefixes, and of texts that the model samples.
        hparams: Whatever differs from the editor's defaults for this model.

    Raises:
        RequestError: A fact that cannot be read or edited; names record and field.
        HparamsError: An unknown editor, protocol or hyper-parameter, or an impossible value.
        ModelError: A layer that does not exist.
        MomentError: Second moments that are singular: too few texts.
        SolveError: A batch contradicts itself.
    """
    if not isinstance(lm, LanguageModel):
        raise ModelError(f"found {type(lm).__name__} {str(lm)[:60]!r}; expected a loaded model: palimpsest.load(NAME)")
    if batch_size is not None and batch_size < 1:
        raise HparamsError(f"batch_size is {batch_size}; expected 1 or more, or None for all at once")
    if isinstance(texts, str):
        raise MomentError("texts is one text; expected a list of them")
    layers = [layers] if isinstance(layers, int) else layers
    batch = requests_from(facts)
    _check_length(lm, batch)
    resolved = resolve_hparams(editor, model=lm.name, protocol=protocol, overrides=hparams, preset=preset)
    method = make_editor(editor, resolved)
    size = batch_size or min(len(batch), method.max_batch or len(batch))
    said: list[str] = []
    if layers is None:
        layers, why = default_layers(editor, model=lm.name, n_layers=lm.n_layers)
        said.append(f"layers {list(layers)}: {why}")
    check_shape(editor, lm, layers, size)
    if "subject" in method.needed() and (without := [r.request_id for r in batch if not r.subject]):
        raise RequestError(
            f"editor {editor!r} looks for each fact's subject; found none in requests {without[:3]}; give subjects"
        )
    if "network" in method.needed() and networks is None:
        raise HparamsError(
            f"editor {editor!r} is a trained network; found none; give networks= (editing.methods.training.Trainer trains "
            "one), or run an experiment, which trains it (docs/malmen.md)"
        )
    artifacts = Artifacts(
        geometry=_geometry(lm, layers, moments, texts, seed, said) if "second_moment" in method.needed() else {},
        contexts=_contexts(lm, resolved, seed) if "contexts" in method.needed() else ("",),
        networks=networks,
    )
    before, patches = Look.at(lm, batch), lm.patches.snapshot()
    weights: dict[str, Tensor] = {}
    results: list[EditResult] = []
    state: State = {}
    try:
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            result = until_it_fits(lm, partial(method.edit, lm, part, layers, state, artifacts))
            weights |= lm.snapshot(sorted({update.name for update in result.updates} - weights.keys()))
            result.apply(lm)
            results.append(result)
            state = result.state
        after = Look.at(lm, batch)
    except BaseException:  # also Ctrl-C: nobody would have a way back to where the model was
        lm.restore(weights)
        lm.patches.restore(patches)
        raise
    norms = {name: float((lm.precise(name).double() - old.double()).norm()) for name, old in weights.items()}
    said += dict.fromkeys(warning for result in results for warning in result.warnings)
    made = Edits(lm, batch, results, before, after, norms, said, weights, patches)
    lm.edited.append(made)
    return made


def _check_length(lm: LanguageModel, requests: Sequence[EditRequest]) -> None:
    """Refuse facts whose prompt and answer the model cannot read at once."""
    limit = lm.context_tokens
    if limit is None or lm.family.head == "classifier":
        return
    heads, tails = lm.pair_ids([r.prompt for r in requests], [r.target_new for r in requests])
    for request, head, tail in zip(requests, heads, tails, strict=True):
        if len(head) + len(tail) > limit:
            raise RequestError(
                f"request {request.request_id!r}: its prompt has {len(head)} tokens and its answer {len(tail)}, and the model "
                f"reads {limit} at once; shorten them"
            )


def _geometry(
    lm: LanguageModel,
    layers: Sequence[int],
    moments: Mapping[int, SecondMoment] | None,
    texts: Sequence[str] | None,
    seed: int,
    said: list[str],
) -> dict[int, KeyGeometry]:
    """Return each layer's second moment as editors use it: given, or of texts, which the model samples if there are none."""
    if moments is None and texts is None:
        count = enough(max(lm.weight(layer).shape[1] for layer in layers))
        texts = own_texts(lm, range(count), seed=seed)
        said.append(f"second moments: of {count} texts that the model sampled itself (texts= or moments= gives others)")
    found = moments if moments is not None else collect_moments(lm, list(texts or ()), layers)
    return {
        layer: KeyGeometry.of(moment.matrix.to(lm.weight(layer).device), name=f"the second moment of layer {layer}")
        for layer, moment in found.items()
    }


def _contexts(lm: LanguageModel, hparams: Mapping[str, Any], seed: int) -> tuple[str, ...]:
    return sample_contexts(
        lm, hparams["contexts"], n_tokens=hparams["context_tokens"], seed=seed, starts=hparams["context_starts"]
    )


def apply(
    lm: LanguageModel,
    method: Editor,
    batch: Sequence[EditRequest],
    layers: Sequence[int],
    state: State,
    artifacts: Artifacts,
) -> EditResult:
    """Compute one batch's edit and write it."""
    result = until_it_fits(lm, lambda: method.edit(lm, batch, layers, state, artifacts))
    result.apply(lm)
    return result


def check_shape(editor: str, lm: LanguageModel, layers: Sequence[int], batch_size: int) -> None:
    """Raise if an editor cannot work on these layers or on batches of this size.

    Raises:
        ModelError: The model has no such layers.
        HparamsError: The editor cannot edit them, so many of them, or so many facts at once.
    """
    cls, name = editor_class(editor), f"editor {editor!r}"
    lm.check_layers(layers)
    model = lm.name or "this model"
    problem = (
        refused_layers(name, lambda count: cls.refusal(lm.family, count), layers, model)
        or unordered_layers(layers)
        or too_many_layers(name, cls, layers)
        or too_large_batch(name, cls, batch_size)
    )
    if problem is not None:
        raise HparamsError(f"{problem}; give fewer, or another editor" if "at a time" in problem else problem)
