"""Which columns of a table a terminal has room for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

GAP = 2
"""Blanks between columns."""
LONGEST = 28
"""A column that is wider may be folded to this width, where the table does not fit."""
_LATER = (
    *(
        "setting",
        "pool",
        "draw",
        "moments",
        "prefixes",
        "numbers",
        "hparams_digest",
        "given_contexts",
        "given_targets",
        "baseline_run_id",
    ),
    *(
        "variant",
        "preset",
        "guard",
        "protocol",
        "mode",
        "questions_run_id",
        "model_digest",
        "facts_run_id",
        "versions",
        "spec",
    ),
    *(
        "ledger MB",
        "left over",
        "runs",
        "algorithm_version",
        "effective_ridge",
        "scored_at",
        "is_nan",
        "invalid",
        "too_long",
    ),
    *("mean_value", "n_final", "n_judged", "shots_from", "n_shots", "run_id"),
    # Of the summary, where S says most of it.
    *("NS ", "PS ", "NS", "PS", "drift"),
)
"""Columns that say least to people, the least first: digests, what few runs differ by, beside its setting the name of a run."""
_LATER_ENDS = ("_digest", "_stderr", "_low", "_high")


class Fitted(NamedTuple):
    """The columns that are shown, and of those that are not what there is to say."""

    shown: list[str]
    left_out: list[str]
    same: dict[str, str]
    """Of those left out, columns with one value in all rows."""


def fit(cells: Sequence[Mapping[str, str]], values: Sequence[Mapping[str, Any]], width: int) -> Fitted:
    """Return the columns that fit into a width: first those without a value go, then digests, then what is the same everywhere,
    then one after another from the right.

    Args:
        cells: Rows as they are shown.
        values: The same rows as they are.
    """
    names = list(cells[0])
    sizes = {name: min(LONGEST, max(len(name), *(len(row[name]) for row in cells))) for name in names}
    empty = [name for name in names if all(row[name] is None for row in values)]
    same = {name: cells[0][name] for name in names if len(cells) > 1 and len({row[name] for row in cells}) == 1}
    later = [name for name in names[1:] if name.endswith(_LATER_ENDS)]
    later += [name for name in _LATER if name in names[1:]]
    order = [*empty, *later, *(name for name in names[1:] if name in same)]
    # What an answer is ordered and told apart by stands at its left.
    order += [name for name in reversed(names[1:]) if name not in order]
    shown = list(names)
    for name in dict.fromkeys(order):
        if _width(shown, sizes) <= width or len(shown) == 1:
            break
        shown.remove(name)
    left_out = [name for name in names if name not in shown]
    return Fitted(shown, left_out, {name: same[name] for name in left_out if name in same and name not in empty})


def said_of(fitted: Fitted) -> str:
    """Return a line on what is not shown; empty if all is."""
    if not fitted.left_out:
        return ""
    same = [
        f"{name.strip()} {value}" for name, value in fitted.same.items() if len(value) <= LONGEST and name not in _LATER
    ]
    others = [name.strip() for name in fitted.left_out if name not in fitted.same or name in _LATER]
    parts = [f"all: {', '.join(same)}"] if same else []
    parts += [f"not shown: {', '.join(others)}"] if others else []
    return f"({'; '.join(parts)}; --wide shows every column)"


def _width(names: Sequence[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] for name in names) + GAP * (len(names) - 1)
