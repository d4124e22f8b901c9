"""Editing from a notebook: no pipeline, no store."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from editing.errors import HparamsError, MomentError, RequestError
from editing.hparams import resolve_hparams
from editing.measure.contexts import sample_contexts
from editing.measure.moments import SecondMoment, collect_moments
from editing.methods.editor import Artifacts, Editor, EditResult, State, editor_class, make_editor
from editing.methods.geometry import KeyGeometry
from editing.methods.hypernetwork import HyperNetworks
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.model.memory import until_it_fits
from editing.requests import EditRequest
from editing.shapes import refused_layers, too_large_batch, too_many_layers, unordered_layers

__all__ = ["EditRequest", "apply", "check_shape", "edit", "load"]


def edit(
    lm: LanguageModel,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    *,
    editor: str,
    layers: Sequence[int],
    moments: Mapping[int, SecondMoment] | None = None,
    texts: Sequence[str] | None = None,
    batch_size: int | None = None,
    networks: HyperNetworks | None = None,
    protocol: str = "corrected",
    seed: int = 0,
    **hparams: Any,
) -> list[EditResult]:
    """Write ``requests`` into the model, in place, and return what is known of each batch.

    To undo, take ``lm.snapshot(names)`` before and ``lm.restore`` it after.

    Args:
        requests: Edit requests, or records in CounterFact's layout.
        editor: An editor's name, as :func:`editing.hparams.editor_names` lists them.
        layers: Edited blocks, counted from 0, in ascending order.
        moments: Second moments per layer, if the editor needs them.
        texts: Or texts to take them from, now.
        networks: A trained hyper-network (:class:`editing.methods.training.Trainer` has one), if the editor needs it.
        batch_size: Requests per update; all at once by default, or as many as the editor can take.
        seed: Of the context prefixes.
        hparams: Whatever differs from the editor's defaults for this model.

    Raises:
        HparamsError: An unknown editor, protocol or hyper-parameter, or an impossible value.
        ModelError: A layer that does not exist.
        MomentError: The editor needs second moments and neither ``moments`` nor ``texts`` is given.
        SolveError: A batch contradicts itself.
    """
    batch = [r if isinstance(r, EditRequest) else EditRequest.from_counterfact(r) for r in requests]
    if not batch:
        raise RequestError("no requests; expected at least one")
    resolved = resolve_hparams(editor, model=lm.name, protocol=protocol, overrides=hparams)
    method = make_editor(editor, resolved)
    size = batch_size or min(len(batch), method.max_batch or len(batch))
    check_shape(editor, lm, layers, size)
    if "subject" in method.needed() and (without := [r.request_id for r in batch if not r.subject]):
        raise RequestError(
            f"editor {editor!r} looks for each fact's subject; found none in requests {without[:3]}; give subjects"
        )
    geometry = {}
    if "second_moment" in method.needed():
        if moments is None and texts is None:
            raise MomentError(
                f"editor {editor!r} needs second moments of layers {list(layers)}; found neither moments= nor texts=; pass "
                "some hundred texts of the model's own kind as texts="
            )
        found = moments if moments is not None else collect_moments(lm, list(texts or ()), layers)
        geometry = {
            layer: KeyGeometry.of(moment.matrix.to(lm.weight(layer).device), name=f"the second moment of layer {layer}")
            for layer, moment in found.items()
        }
    contexts: tuple[str, ...] = ("",)
    if "contexts" in method.needed():
        contexts = sample_contexts(
            lm, resolved["contexts"], n_tokens=resolved["context_tokens"], seed=seed, starts=resolved["context_starts"]
        )
    artifacts = Artifacts(geometry=geometry, contexts=contexts, networks=networks)
    results: list[EditResult] = []
    state: State = {}
    for start in range(0, len(batch), size):
        result = apply(lm, method, batch[start : start + size], layers, state, artifacts)
        results.append(result)
        state = result.state
    return results


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
