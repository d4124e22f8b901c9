"""Kinds of values in an experiment file, and the error of one that cannot be run."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.data.record_files import is_record_file

Layer = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, gt=0)]
Layers = (
    Literal["search", "trace"]
    | Annotated[list[Layer], Field(min_length=1)]
    | Annotated[list[Annotated[list[Layer], Field(min_length=1)]], Field(min_length=1)]
)


def named(value: Any) -> Any:
    """Return a table with a name, of which the name alone may be given."""
    return {"name": value} if isinstance(value, str) else value


def named_or_file(key: str) -> Callable[[Any], Any]:
    """Return what reads a table of which a name alone may be given, or that of a file of records, which is under ``key``."""

    def read(value: Any) -> Any:
        return {key: value} if isinstance(value, str) and is_record_file(value) else named(value)

    return read


def auto_is_none(value: Any) -> Any:
    """Return None for ``auto``: what is given is chosen when it is known."""
    return None if value == "auto" else value


class SpecError(Exception):
    """An experiment file that cannot be run; the message lists every error with its path."""


class Strict(BaseModel):
    """A table that has no keys but its own, and no number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
