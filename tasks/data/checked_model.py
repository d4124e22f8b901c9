"""A model that has been looked at: its weights are whole, its tokenizer can be used, and how prompts are written is known."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.cache import remembered
from tasks.specs.run import ModelRef

if TYPE_CHECKING:
    from editing.model.tokens import PromptFormat


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """A model whose folder holds what its config describes."""

    ref: ModelRef
    """With what is particular about its prompts."""
    begins: bool
    """Whether something stands in front of every text."""
    oversized: bool
    """Whether its tokenizer gives tokens for which it has no embedding, so that every text has to be looked at."""
    context: int | None
    """How many tokens it reads at once; None if its positions are relative."""

    @cached_property
    def form(self) -> "PromptFormat":
        """How its prompts and answers are written; reading it takes the libraries of its tokenizer."""
        from editing.model.loading import load_format

        return load_format(self.ref.folder, chat=self.ref.chat, text_start=self.ref.text_start)

    @property
    def form_key(self) -> dict[str, object]:
        """What determines :attr:`form`."""
        return {"model": self.ref.digest, "chat": self.ref.chat, "text_start": self.ref.text_start}


def checked_model(model: ModelRef) -> CheckedModel:
    """Look at a model's weights and tokenizer; what was found of these very files before is remembered.

    Raises:
        InputError: Weights are missing, without a place, of another shape or no plain floating point; the adapter does not
            fit; or the tokenizer cannot be used as it is asked for.
    """

    def look() -> dict[str, object]:
        from tasks.data.weight_files import look_at

        return look_at(model)._asdict()

    made_of = {
        "model": model.digest,
        "chat": model.chat,
        "text_start": model.text_start,
        "adapter": model.adapter_digest,
    }
    found = remembered("models", made_of, look)
    return CheckedModel(ref=replace(model, particulars=found.pop("particulars")), **found)
