"""Palimpsest from Python: edit a model, run an experiment, ask a store.

    import palimpsest as pal

    lm = pal.load("factworld-gpt2")
    with pal.edit(lm, [{"prompt": "{} lives in", "subject": "Jonas Hagen", "target_new": "Rome"}]):
        print(lm.ask("Jonas Hagen lives in"))

    pal.run("demo")
    store = pal.open("results/demo")
    store.sql("FROM editing_curve WHERE edits = 50").df()

Everything is imported when it is first asked for: ``load`` and ``edit`` need torch, ``open`` needs DuckDB alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editing.api import edit
    from editing.edits import Edits
    from editing.model.lm import LanguageModel
    from editing.model.loading import load
    from editing.requests import EditRequest
    from flows.python_api import plan, run
    from storage.opened import OpenStore, open

_PLACES = {
    "EditRequest": "editing.requests",
    "Edits": "editing.edits",
    "LanguageModel": "editing.model.lm",
    "OpenStore": "storage.opened",
    "edit": "editing.api",
    "load": "editing.model.loading",
    "open": "storage.opened",
    "plan": "flows.python_api",
    "run": "flows.python_api",
}
__all__ = ["EditRequest", "Edits", "LanguageModel", "OpenStore", "edit", "load", "open", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("palimpsest-editing")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'palimpsest' has no attribute {name!r}; it has {sorted(_PLACES)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
