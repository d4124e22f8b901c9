"""A paper as a file: its experiments at every scale, its tables and figures, and its claims."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.spec_values import SpecError
from tasks.reports.panels import PANELS
from tasks.reports.verdicts import Claim, Expected

PAPERS = Path(__file__).parent / "papers"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureSpec(_Strict):
    """One panel for one of the paper's figures."""

    panel: str
    where: str = "true"
    apart: bool = False


class ItemSpec(_Strict):
    """A table or a figure: how it is drawn, or why it is not."""

    title: str
    pictures: list[PictureSpec] = []
    table: str | None = None
    """A statement that gives it."""
    excused: str | None = None
    """Why it is neither drawn nor judged."""

    @model_validator(mode="after")
    def _is_something(self) -> "ItemSpec":
        known = [panel.name for panel in PANELS]
        if wrong := [each.panel for each in self.pictures if each.panel not in known]:
            raise ValueError(f"no figure {wrong[0]!r}; expected some of {known}")
        return self


class SideSpec(_Strict):
    """Which settings are compared: columns of ``comparisons`` and their values."""

    editor: str | None = None
    batch_size: int | None = None
    layers: list[int] | None = None
    preset: str | None = None
    """``none``: without one."""


class CompareSpec(_Strict):
    """A comparison of two kinds of settings over the same facts."""

    a: SideSpec
    b: SideSpec
    metric: str
    scored: str = "final"
    equal: list[str] = []
    """Columns in which both are alike."""
    where: str = "true"
    """A condition on the columns of ``comparisons``, whichever side is named first there."""
    qualify: str | None = None
    """A condition with a window function, over what is left."""

    def sql(self) -> str:
        """Return the statement that gives each pair's difference, of a to b."""
        both = []
        for first, second, sign in (("", "other_", 1), ("other_", "", -1)):
            low, high = ("low", "high") if sign == 1 else ("-high", "-low")
            told = [*_conditions(self.a, first), *_conditions(self.b, second), f"({self.where})"]
            told += [f"{name} IS NOT DISTINCT FROM other_{name}" for name in self.equal]
            of = " || ' to ' || ".join(
                f"{side}editor || ' b' || {side}batch_size || coalesce(' ' || {side}preset, '')"
                for side in (first, second)
            )
            both.append(
                f"SELECT {sign} * difference AS value, {low} AS low, {high} AS high, n_pairs AS n, "
                f"model || ', ' || {of} AS what "
                f"FROM comparisons WHERE metric = '{self.metric}' AND scored = '{self.scored}' AND {' AND '.join(told)}"
                + (f" QUALIFY {self.qualify}" if self.qualify else "")
            )
        return f"SELECT * FROM ({' UNION ALL '.join(both)})"


class ClaimSpec(_Strict):
    """One sentence of a paper: what gives a value, and what is said of it; or why none is judged."""

    item: str
    says: str
    compare: CompareSpec | None = None
    sql: str | None = None
    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None
    published: float | Literal["by row"] | None = None
    """``by row``: the statement gives it, in a column of this name."""
    tolerance: float = Field(default=0.0, ge=0)
    least_n: int = Field(default=30, gt=0)
    excused: str | None = None
    """Why no store can tell."""

    @model_validator(mode="after")
    def _is_judged(self) -> "ClaimSpec":
        if sum(part is not None for part in (self.compare, self.sql, self.excused)) != 1:
            raise ValueError("expected one of compare, sql and excused")
        said = (self.above, self.below, self.within, self.published)
        if self.excused is None and all(part is None for part in said):
            raise ValueError("expected what is said of the value: above, below, within or published")
        return self

    @property
    def statement(self) -> str | None:
        return self.sql if self.compare is None else self.compare.sql()


class PaperSpec(_Strict):
    """A paper."""

    title: str
    source: str
    scales: dict[str, list[dict[str, Any]]]
    """Experiments by scale, as in experiment files."""
    items: dict[str, ItemSpec]
    claims: dict[str, ClaimSpec]

    @model_validator(mode="after")
    def _fits(self) -> "PaperSpec":
        if lost := [name for name, claim in self.claims.items() if claim.item not in self.items]:
            raise ValueError(f"claims {lost} are of items that are not listed")
        judged = {claim.item for claim in self.claims.values()}
        bare = [n for n, i in self.items.items() if not (i.pictures or i.table or i.excused or n in judged)]
        if bare:
            raise ValueError(f"items {bare} are neither drawn nor judged; draw them, or say why not (excused)")
        return self

    def claims_of(self, item: str | None) -> list[Claim]:
        """Return the claims of one item, or all."""
        return [
            Claim(
                name=name,
                item=each.item,
                says=each.says,
                sql=each.statement,
                expected=Expected(
                    above=each.above,
                    below=each.below,
                    within=each.within,
                    published=each.published,
                    tolerance=each.tolerance,
                ),
                least_n=each.least_n,
                excused=each.excused,
            )
            for name, each in self.claims.items()
            if item in (None, each.item, name)
        ]


def paper_names() -> list[str]:
    """Return the names of the papers that are here."""
    return sorted(path.stem for path in PAPERS.glob("*.yaml"))


def load_paper(name: str) -> PaperSpec:
    """Read and check a paper's file, by its name or path.

    Raises:
        SpecError: No such paper, or its file is wrong.
    """
    file = Path(name) if name.endswith(".yaml") else PAPERS / f"{name}.yaml"
    if not file.exists():
        raise SpecError(f"no paper {name!r}; expected one of {paper_names()}, or the path of a file")
    try:
        return PaperSpec.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise SpecError(f"{file}: {error}") from error


def _conditions(side: SideSpec, prefix: str) -> list[str]:
    given = side.model_dump(exclude_none=True)
    return [
        f"{prefix}{name} IS NULL" if (name, value) == ("preset", "none") else f"{prefix}{name} = {value!r}"
        for name, value in given.items()
    ]
