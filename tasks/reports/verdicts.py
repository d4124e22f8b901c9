"""Whether a paper's claim holds in a store: agrees, differs, undecided, not judged, or not run; with what it rests on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal

from storage.errors import QueryError
from storage.sql import query, query_many
from storage.store import Store

Verdict = Literal["agrees", "differs", "undecided", "not judged", "not run"]
_WORST: tuple[Verdict, ...] = ("differs", "undecided", "agrees", "not judged")
"""A claim over several rows is as good as the worst of them that is judged: those of few facts are not, and at small scale no
published number is."""
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a claim says of a value."""

    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None
    """Of what is said to be alike: the margin that is stated."""
    published: float | Literal["by row"] | None = None
    tolerance: float = 0.0

    def judge(self, row: Row, *, with_numbers: bool) -> Verdict:
        """Return what a value with its interval says of the claim.

        Args:
            with_numbers: Whether the published number is judged, or only the direction.
        """
        low, high = row["low"], row["high"]
        if low is None or high is None:
            return "not judged"
        found = [_side(low, high, self.above, None), _side(low, high, None, self.below)]
        if self.within is not None:
            found.append(_inside(low, high, *self.within))
        if self.published is not None:
            number = self.number_of(row)
            near = (number - self.tolerance, number + self.tolerance)
            found.append(_near(row["value"], low, high, *near) if with_numbers else "not judged")
        asked = [verdict for verdict in found if verdict is not None]
        return worst(asked)

    def number_of(self, row: Row) -> float:
        """Return the number that the paper prints for a row."""
        return float(row["published"]) if self.published == "by row" else float(self.published or 0)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of a paper that a store can agree with."""

    name: str
    item: str
    """The table or figure."""
    says: str
    sql: str | None
    """Gives ``value``, ``low``, ``high``, ``n``, and ``what`` it is of: a row for each model or setting."""
    expected: Expected
    least_n: int = 30
    excused: str | None = None
    """Why no store can tell, where there is no statement."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim with what was found."""

    claim: Claim
    verdict: Verdict
    rows: tuple[Row, ...]
    """With a ``verdict`` each."""

    @property
    def found(self) -> str:
        """Return what it rests on, in a line."""
        if self.claim.excused:
            return self.claim.excused
        return "; ".join(
            f"{row['what']}: {row['value']:z.3f} ({row['low']:z.3f} to {row['high']:z.3f}, n {row['n']}"
            + (
                f"; the paper {self.claim.expected.number_of(row):g})"
                if self.claim.expected.published is not None
                else ")"
            )
            for row in self.rows
            if row["low"] is not None and row["high"] is not None
        )


def judge(store: Store, claims: Sequence[Claim], *, with_numbers: bool, unseen: Collection[str] = ()) -> list[Judged]:
    """Return every claim with its verdict.

    Args:
        with_numbers: Whether published numbers are judged: at small scale only directions are.
        unseen: Runs that are not looked at.
    """
    asked = [claim for claim in claims if claim.sql is not None]
    tables = query_many(store, [str(claim.sql) for claim in asked], unseen=unseen)
    rows = {claim.name: table.to_pylist() for claim, table in zip(asked, tables, strict=True)}
    return [_judged(claim, rows.get(claim.name, []), with_numbers) for claim in claims]


def problems_of(claims: Sequence[Claim]) -> list[str]:
    """Return what is wrong with the statements of claims, which are run over a store that holds nothing."""
    with TemporaryDirectory() as folder:
        store = Store(folder, create=True)
        found = [_problem(store, claim, claim.sql) for claim in claims if claim.sql is not None]
    return [f"claim {claim}: {problem}" for claim, problem in found if problem is not None]


def _problem(store: Store, claim: Claim, sql: str) -> tuple[str, str | None]:
    wanted = {"what", "value", "low", "high", "n"} | ({"published"} if claim.expected.published == "by row" else set())
    try:
        lacking = wanted - set(query(store, sql).column_names)
    except QueryError as error:
        return claim.name, str(error)
    problem = f"its statement gives no column {sorted(lacking)}; expected {sorted(wanted)}"
    return claim.name, problem if lacking else None


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of some verdicts; ``not run`` of none."""
    return next((verdict for verdict in _WORST if verdict in verdicts), "not run")


def _judged(claim: Claim, rows: Sequence[Row], with_numbers: bool) -> Judged:
    told = [
        {
            **row,
            "verdict": claim.expected.judge(row, with_numbers=with_numbers)
            if (row["n"] or 0) >= claim.least_n
            else "not judged",
        }
        for row in rows
        if row["value"] is not None
    ]
    verdict = "not judged" if claim.excused else worst([row["verdict"] for row in told])
    return Judged(claim=claim, verdict=verdict, rows=tuple(told))


def _side(low: float, high: float, above: float | None, below: float | None) -> Verdict | None:
    if above is not None:
        return "agrees" if low > above else "differs" if high < above else "undecided"
    if below is not None:
        return "agrees" if high < below else "differs" if low > below else "undecided"
    return None


def _inside(low: float, high: float, least: float, most: float) -> Verdict:
    """Alike only if the whole interval lies within the margin."""
    if least <= low and high <= most:
        return "agrees"
    return "differs" if high < least or low > most else "undecided"


def _near(value: float, low: float, high: float, least: float, most: float) -> Verdict:
    """A published number is met if what was measured lies within its tolerance, missed if the whole interval lies outside."""
    if high < least or low > most:
        return "differs"
    return "agrees" if least <= value <= most else "undecided"
