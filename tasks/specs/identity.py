"""What names a thing: everything that determines it, as JSON.

Every field of a description is a part of its identity, unless the field says that it is not: a field that somebody adds and
forgets to think about makes new ids, and no silent mixture of two runs.  One that is added with a default leaves all ids as
they were as long as it has that default.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any


def outside(**options: Any) -> Any:
    """Return a dataclass field that is no part of the identity: where something stands, or what it is called."""
    return field(metadata={"outside": True}, **options)


def called(name: str, value: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """Return a dataclass field that stands in the identity under another name.

    Args:
        value: What stands there for it; then it stands there at its default, too.
    """
    return field(metadata={"name": name, "value": value}, **options)


def identity_of(described: Any) -> dict[str, Any]:
    """Return what determines a dataclass; the identities of those that it holds are spread into its own."""
    found: dict[str, Any] = {}
    for each in fields(described):
        value, derived = getattr(described, each.name), each.metadata.get("value")
        if each.metadata.get("outside") or (derived is None and _is_at_default(each, value)):
            continue
        if hasattr(value, "identity"):
            found |= value.identity
        else:
            found[each.metadata.get("name", each.name)] = _plain(derived(value) if derived else value)
    return found


def _is_at_default(each: Field[Any], value: Any) -> bool:
    default = each.default if each.default_factory is MISSING else each.default_factory()
    return default is not MISSING and bool(value == default)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
