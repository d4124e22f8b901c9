"""What there is: editors, models, data sets, benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editing.hparams import resolve_hparams


@dataclass(frozen=True, kw_only=True)
class EditorCard:
    """An editor with its hyper-parameters for one model, checked."""

    name: str
    version: int
    needs: frozenset[str]
    max_batch: int | None
    max_layers: int | None
    hparams: Mapping[str, Any]


def editor_card(name: str, *, model: str, protocol: str, overrides: Mapping[str, Any]) -> EditorCard:
    """Return an editor's card.

    Raises:
        HparamsError: An unknown editor or hyper-parameter, or an impossible value.
    """
    from editing.editor import make_editor

    hparams = resolve_hparams(name, model=model, protocol=protocol, overrides=overrides)
    made = make_editor(name, hparams)
    return EditorCard(
        name=name,
        version=made.version,
        needs=frozenset(made.needs),
        max_batch=made.max_batch,
        max_layers=made.max_layers,
        hparams=hparams,
    )
