"""The marts of ``views/*.sql``: what each is, what it builds on, and what must hold of its columns.

A file begins with a comment that says what it shows.  ``-- step`` in its first line makes it a part of others that nobody
asks for by name, ``-- kept`` one that is read several times in one statement, and so is computed once.  After an empty
comment line stand the rules of its columns, in YAML.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path
from typing import Any

VIEWS = Path(__file__).parent / "views"
MACROS = (Path(__file__).parent / "macros.sql").read_text()
"""Rules that marts share."""
_READ = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)", re.IGNORECASE)
"""How marts name what they read: one name after each ``FROM`` or ``JOIN``."""
_ROLES = ("step", "kept")


@dataclass(frozen=True, kw_only=True)
class Mart:
    """One view over the tables, or over other marts."""

    name: str
    sql: str
    about: str
    """What it shows."""
    role: str
    """``step``, ``kept``, or nothing for one that users ask for."""
    rules_text: str

    @property
    def is_public(self) -> bool:
        return not self.role

    @property
    def reads(self) -> frozenset[str]:
        """The tables and marts that it names."""
        return frozenset(_READ.findall(self.sql))

    @property
    def rules(self) -> Mapping[str, Any]:
        """What must hold of its columns: ``unique`` together, ``not_null``, ``rates`` in [0, 1], ``accepted`` values, and
        ``references`` to another table's column."""
        import yaml

        return yaml.safe_load(self.rules_text) or {}


@cache
def marts() -> Mapping[str, Mart]:
    """Return all marts by name, each behind those that it builds on."""
    found = {path.stem: _read(path) for path in sorted(VIEWS.glob("*.sql"))}
    order = TopologicalSorter({mart.name: sorted(mart.reads & found.keys()) for mart in found.values()})
    return {name: found[name] for name in order.static_order()}


def public_marts() -> list[str]:
    """Return the names of the marts that users ask for, in alphabetical order."""
    return sorted(name for name, mart in marts().items() if mart.is_public)


def needed_by(names: Iterable[str]) -> list[str]:
    """Return the tables and marts that these read, directly or through others; marts in their order, at the end."""
    todo, found = list(names), set[str]()
    while todo:
        read = marts()[todo.pop()].reads - found
        found |= read
        todo += read & marts().keys()
    return [*sorted(found - marts().keys()), *(name for name in marts() if name in found)]


def definition(name: str) -> str:
    """Return a mart's SQL with all that it builds on.

    Not views over views, each of which would be bound once more for every one that it is part of.
    """
    parts = [marts()[part] for part in needed_by([name]) if part in marts()]
    if not parts:
        return marts()[name].sql
    steps = (f"{p.name} AS {'' if p.role == 'kept' else 'NOT MATERIALIZED '}(\n{p.sql})" for p in parts)
    return f"WITH {', '.join(steps)} SELECT * FROM (\n{marts()[name].sql})"


def _read(path: Path) -> Mart:
    text = path.read_text()
    head = takewhile(lambda line: line.startswith("--"), text.splitlines())
    comment = [line.removeprefix("--").removeprefix(" ") for line in head]
    role = comment.pop(0) if comment and comment[0] in _ROLES else ""
    about, _, rules = "\n".join(comment).partition("\n\n")
    return Mart(name=path.stem, sql=text, about=about.replace("\n", " "), role=role, rules_text=rules)
