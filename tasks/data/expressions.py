"""Expressions and templates of definition files: Jinja, confined."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from tasks.data.math_text import math_answer

ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What evaluating can raise."""
_ENVIRONMENT = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)


def _listed(value: Any) -> Any:
    """Return a list as it is: of a text, the first item would be a letter."""
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"found {value!r}; expected a list with at least one item")
    return value


def as_texts(value: Any) -> list[str]:
    """Return a list of texts, which a cell of a table holds as JSON.

    Raises:
        ValueError: It is something else.
    """
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError as error:
            raise ValueError(
                f'found {value[:80]!r}, which is no list in JSON ({error}); expected ["a", "b"]'
            ) from error
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, (str, int, float)) for each in found):
        raise ValueError(f'found {value!r}; expected a list of texts, as ["a", "b"]')
    return [str(each) for each in found]


_ENVIRONMENT.filters |= {
    "listed": _listed,
    "texts": as_texts,
    "final_answer": math_answer,
    "letters_in_brackets": lambda text: re.findall(r"^\([A-Z]\)", text, flags=re.MULTILINE),
}


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """Return what an expression gives.

    Raises:
        ValueError: It names something that is not there.
    """
    found = _expression(expression)(**values)
    if isinstance(found, jinja2.Undefined):
        raise ValueError(f"{expression!r} names nothing that is there")
    return found


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template with its values filled in."""
    return _template(template).render(**values)


@cache
def _expression(text: str) -> Any:
    return _ENVIRONMENT.compile_expression(text, undefined_to_none=False)


@cache
def _template(text: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(text)
