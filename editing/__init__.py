"""Knowledge editing of language models in plain PyTorch: ``from editing import edit, load``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editing.api import edit
    from editing.model.loading import load
    from editing.requests import EditRequest

__all__ = ["EditRequest", "edit", "load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that the catalogues (hparams, bundled models) can be read in milliseconds, without torch.
    if name in __all__:
        from editing import api

        return getattr(api, name)
    raise AttributeError(f"module 'editing' has no attribute {name!r}")
