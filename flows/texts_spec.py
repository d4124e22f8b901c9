"""What an experiment file may say of where texts come from: of second moments, and of a perplexity."""

from typing import Literal, Self

from pydantic import Field, model_validator

from flows.spec_values import Strict


class TextsSpec(Strict):
    """Texts: of the facts' own world, of the lines of a local text file, of a hub data set, or sampled by the model itself."""

    path: str | None = None
    """A text file, one text per line."""
    hub: str | None = None
    """A data set of texts on the hub, with the commit as ``revision``."""
    revision: str | None = None
    """The commit."""
    config: str | None = None
    """The data set's configuration."""
    split: str = "train"
    """The data set's split."""
    column: str = "text"
    """The data set's column of texts."""
    texts: Literal["self"] | None = None
    """``self``: the unedited model samples them itself, from the start of text.  They are kept in the store."""
    text_tokens: int = Field(default=64, gt=0)
    """Of each text that the model samples."""
    top_k: int = Field(default=50, gt=0)
    """Each token is drawn from so many of the likeliest."""
    temperature: float = Field(default=1.0, gt=0)
    """Of those draws."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Of each text; the model's context length unless given."""

    @model_validator(mode="after")
    def _says_nothing_of_another_source(self) -> Self:
        given = self.model_fields_set
        if wrong := sorted(given & {"revision", "config", "split", "column"}) if self.hub is None else []:
            raise ValueError(
                f"{wrong[0]} says something of a hub data set, and there is no hub; remove it, or give hub"
            )
        others = [
            name for name in (*self.sources, "files") if name != "texts" and getattr(self, name, None) is not None
        ]
        if wrong := sorted(given & {"text_tokens", "top_k", "temperature"}) if others and self.texts is None else []:
            raise ValueError(
                f"{wrong[0]} says how the model samples texts, and {others[0]} gives others; remove one of them"
            )
        return self

    @property
    def sources(self) -> list[str]:
        """The settings that name a source; more than one is refused."""
        return [name for name in ("path", "hub", "texts") if getattr(self, name) is not None]
