"""What a store shows, in sentences: differences with their intervals, and what cannot be told apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
COMPARISONS = "SELECT * FROM comparisons"
LEVEL = 0.05
_VERBS = {
    "efficacy": "makes {amount} more of its edits work",
    "paraphrase": "carries {amount} more of them over to paraphrases",
    "neighborhood": "keeps {amount} more neighborhoods",
    "score": "has an S that is {amount} higher",
    "forgotten": "has forgotten {amount} more of the same early edits",
}
"""What the higher of two settings does, by metric."""
_NOUNS = {
    "efficacy": "efficacy",
    "paraphrase": "paraphrases",
    "neighborhood": "neighborhoods",
    "score": "S",
    "forgotten": "what is forgotten",
}
_BEST = {
    "efficacy": "has the highest efficacy",
    "paraphrase": "carries most over to paraphrases",
    "neighborhood": "keeps most neighborhoods",
    "score": "has the highest S",
    "forgotten": "has forgotten least",
}
_WHEN = {"own": "right after their round", "final": "on the final model"}


class Contrast(NamedTuple):
    """Two settings under one metric, with names, and Holm's p-value over all that is shown beside it."""

    row: Row
    name: str
    other_name: str
    p_holm: float

    @property
    def is_told(self) -> bool:
        """Whether the difference is more than noise: its interval leaves 0 out, and so does the test."""
        return self.p_holm < LEVEL and self.row["low"] * self.row["high"] > 0

    @property
    def higher(self) -> str:
        return self.name if self.row["difference"] > 0 else self.other_name

    @property
    def lower(self) -> str:
        return self.other_name if self.row["difference"] > 0 else self.name

    def sentence(self) -> str:
        """Return what can be said of it."""
        row = self.row
        amount, (low, high) = abs(row["difference"]), sorted((abs(row["low"]), abs(row["high"])))
        pairs = f"{row['n_pairs']} paired facts" + (f", {row['n_samples']} samples" if row["n_samples"] > 1 else "")
        when = _WHEN[row["scored"]]
        if self.is_told:
            does = _VERBS[row["metric"]].format(amount=f"{_points(amount)}")
            return (
                f"{self.higher} {does} than {self.lower} ({when}; 95 % {100 * low:.1f} to {100 * high:.1f}, {pairs}, "
                f"p {_p(self.p_holm)})."
            )
        sign = 1 if row["difference"] >= 0 else -1
        ends = sorted((100 * sign * row["low"], 100 * sign * row["high"]))
        return (
            f"No difference can be told between {self.name} and {self.other_name} in {_NOUNS[row['metric']]} {when} "
            f"({_points(amount)}, 95 % {ends[0]:.1f} to {ends[1]:.1f}, {pairs}, p {_p(self.p_holm)})."
        )


def contrasts(rows: Sequence[Row], names: Mapping[str, str]) -> list[Contrast]:
    """Return comparisons with names and adjusted p-values.

    Args:
        rows: Of the view ``comparisons``: all that will be shown.
        names: By setting.
    """
    adjusted = holm([row["p"] for row in rows])
    return [
        Contrast(row, names[row["setting"]], names[row["other_setting"]], p)
        for row, p in zip(rows, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being looked at together (Holm 1979): each is at least as large as a smaller one's."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        found[index] = largest
    return found


def ranking(names: Sequence[str], means: Mapping[str, float], told: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return names from the highest mean on, each with the letters of its ties: two that share a letter are not told apart.

    Args:
        told: Pairs whose difference is more than noise.
    """
    order = sorted(names, key=lambda name: -means[name])
    apart = {frozenset(pair) for pair in told}
    groups: list[set[str]] = []
    for start, name in enumerate(order):
        group = {name}
        for other in order[start + 1 :]:
            if all(frozenset((other, member)) not in apart for member in group):
                group.add(other)
        if not any(group <= known for known in groups):
            groups.append(group)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [(name, "".join(letters[i % 26] for i, group in enumerate(groups) if name in group)) for name in order]


def ranking_rows(settings: Sequence[Row], comparisons: Sequence[Row], metric: str, scored: str) -> list[dict[str, Any]]:
    """Return settings from the best one on under a metric, each with its interval and the letters of its ties.

    Settings of one model, data set and mode, after equally many edits, stand together.

    Args:
        settings: Of ``setting_summary``, with ``label``.
        comparisons: All of the view ``comparisons``.
    """
    mine = [row for row in settings if row["metric"] == metric and row["scored"] == scored]
    names = {row["setting"]: str(row["label"]) for row in settings}
    found = []
    for pool in dict.fromkeys((row["pool"], row["edits"]) for row in mine):
        here = {row["setting"]: row for row in mine if (row["pool"], row["edits"]) == pool}
        rows = [
            row
            for row in comparisons
            if (row["pool"], row["edits"], row["metric"], row["scored"]) == (*pool, metric, scored)
        ]
        told = [(each.row["setting"], each.row["other_setting"]) for each in contrasts(rows, names) if each.is_told]
        sign = -1 if metric == "forgotten" else 1
        ordered = ranking(list(here), {setting: sign * row["mean"] for setting, row in here.items()}, told)
        for place, (setting, ties) in enumerate(ordered, 1):
            row = here[setting]
            interval = "–" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            found.append(
                {"rank": place, "setting": names[setting], "mean": row["mean"], "95 %": interval, "ties": ties}
                | ({"edits": row["edits"]} if len({(r["pool"], r["edits"]) for r in mine}) > 1 else {})
            )
    return found


def best_sentence(metric: str, scored: str, contrasts_of: Sequence[Contrast], means: Mapping[str, float]) -> str:
    """Return which of some settings is best under a metric, and from which others it cannot be told."""
    names = list(means)
    best = (
        min(names, key=lambda name: means[name]) if metric == "forgotten" else max(names, key=lambda name: means[name])
    )
    mine = [each for each in contrasts_of if best in (each.name, each.other_name)]
    ties = [each.other_name if each.name == best else each.name for each in mine if not each.is_told]
    beaten = [each.other_name if each.name == best else each.name for each in mine if each.is_told]
    text = f"{best} {_BEST[metric]} {_WHEN[scored]} ({means[best]:.3f})"
    if ties:
        text += f", and cannot be told from {_listed(ties)}"
    if beaten:
        text += f"{'; it is' if ties else ', and is'} told from {_listed(beaten)}"
    return f"{text}."


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


DIMENSIONS = ("batch_size", "layers", "preset", "protocol", "hparams", "contexts", "guard", "editor")
"""In what settings may differ, as ``comparisons.differs_in`` names it."""


def differs_only_in(row: Row, dimension: str) -> bool:
    """Return whether two settings differ in nothing else; editors have layers and numbers of their own."""
    found = set(row["differs_in"])
    return dimension in found and not found - ({dimension} if dimension != "editor" else {"editor", "layers"})


def answers(rows: Sequence[Contrast], metric: str, scored: str) -> list[tuple[str, list[str]]]:
    """Return, for each dimension in which some settings alone differ, what is best under a metric, in sentences."""
    found = []
    for dimension in DIMENSIONS:
        mine = [
            each
            for each in rows
            if each.row["metric"] == metric and each.row["scored"] == scored and differs_only_in(each.row, dimension)
        ]
        said = [_answer(group, metric, scored) for group in _connected(mine)]
        if said:
            found.append((f"Which {_SAID.get(dimension, dimension)} {_BEST[metric]}?", said))
    return found


_SAID = {"batch_size": "batch size", "layers": "choice of layers", "hparams": "choice of hyper-parameters"}


def _answer(group: Sequence[Contrast], metric: str, scored: str) -> str:
    if len(group) == 1:
        return group[0].sentence()
    means = {each.name: each.row["mean"] for each in group} | {
        each.other_name: each.row["other_mean"] for each in group
    }
    return best_sentence(metric, scored, group, means)


def _connected(rows: Sequence[Contrast]) -> list[list[Contrast]]:
    """Return contrasts in groups that have no setting in common."""
    groups: list[list[Contrast]] = []
    for each in rows:
        own = {each.row["setting"], each.row["other_setting"]}
        joined = [
            group for group in groups if any(own & {one.row["setting"], one.row["other_setting"]} for one in group)
        ]
        groups = [group for group in groups if group not in joined] + [
            [*(one for group in joined for one in group), each]
        ]
    return groups


def verdicts_on_runs(runs: Sequence[Row]) -> tuple[str, list[str]]:
    """Return what became of the models, in sentences.

    Args:
        runs: Rows with ``run_id``, ``n_judged`` and ``collapsed_at``.
    """
    fallen = [run for run in runs if run["collapsed_at"] is not None]
    said = [
        f"{run['run_id']} has lost what it knew and what it was taught by {run['collapsed_at']} edits."
        for run in fallen
    ]
    judged = [run for run in runs if run["n_judged"] and run["collapsed_at"] is None]
    if judged:
        who = "None of the runs has" if not fallen else f"Of the other runs that were judged ({len(judged)}) none has"
        said.append(f"{who} lost both at any checkpoint.")
    return "Did a model collapse?", said
