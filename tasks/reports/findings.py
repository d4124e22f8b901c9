"""What a store shows, in sentences: differences with their intervals, and what cannot be told apart."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from string import ascii_lowercase
from typing import Any, NamedTuple

import networkx

from tasks.reports.labels import labelled

Row = Mapping[str, Any]
COMPARISONS = "SELECT * FROM comparisons"
LEVEL = 0.05
_VERBS = {
    "efficacy": "makes {amount} more of its edits work",
    "paraphrase": "carries {amount} more of them over to paraphrases",
    "neighborhood": "keeps {amount} more neighborhoods",
    "score": "has an S that is {amount} higher",
    "forgotten": "has forgotten {amount} more of the same early edits",
    "benchmark_accuracy": "answers {amount} more of the benchmarks' questions right",
    "edit_success": "has {amount} more of its answers' tokens right (ES)",
    "generalisation_success": "has {amount} more of its answers' tokens right after paraphrases (GS)",
    "locality_success": "leaves {amount} more of its neighbors' tokens right (LS)",
}
"""What the higher of two settings does, by metric."""
_NOUNS = {
    "efficacy": "efficacy",
    "paraphrase": "paraphrases",
    "neighborhood": "neighborhoods",
    "score": "S",
    "forgotten": "what is forgotten",
    "benchmark_accuracy": "the benchmarks' questions",
    "edit_success": "ES",
    "generalisation_success": "GS",
    "locality_success": "LS",
}
_BEST = {
    "efficacy": "has the highest efficacy",
    "paraphrase": "carries most over to paraphrases",
    "neighborhood": "keeps most neighborhoods",
    "score": "has the highest S",
    "forgotten": "has forgotten least",
    "benchmark_accuracy": "answers most of the benchmarks' questions",
    "edit_success": "has the highest ES",
    "generalisation_success": "has the highest GS",
    "locality_success": "has the highest LS",
}
METRICS = tuple(_NOUNS)
"""By which settings are compared."""
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
        what = "questions" if row["metric"] == "benchmark_accuracy" else "facts"
        pairs = f"{row['n_pairs']} paired {what}" + (f", {row['n_samples']} samples" if row["n_samples"] > 1 else "")
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


def names_of(settings: Sequence[Row]) -> dict[str, str]:
    """Return what each setting is called, by its id: no two alike.

    Args:
        settings: Of ``setting_summary``.
    """
    found = {row["setting"]: (str(row["label"]), str(row["group"])) for row in labelled(settings, spread=False)}
    return {setting: f"{label} ({group})" if group else label for setting, (label, group) in found.items()}


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


def ranking(group: Sequence[Contrast], means: Mapping[str, float], *, least_first: bool) -> list[tuple[str, str]]:
    """Return settings from the best one on, each with the letters of its ties: two share one if they are not told apart.

    What pairs say goes before means, which may be over other facts: a setting stands higher that is told better than more
    others than are told better than it.

    Args:
        means: By setting.
    """
    sign = -1 if least_first else 1
    wins = dict.fromkeys(means, 0)
    alike = networkx.Graph()
    alike.add_nodes_from(means)
    alike.add_edges_from(combinations(means, 2))
    for each in group:
        if not each.is_told:
            continue
        pair = (each.row["setting"], each.row["other_setting"])
        alike.remove_edge(*pair)
        better, worse = pair if sign * each.row["difference"] > 0 else pair[::-1]
        wins[better] += 1
        wins[worse] -= 1
    order = sorted(means, key=lambda setting: (-wins[setting], -sign * means[setting], setting))
    place = {setting: number for number, setting in enumerate(order)}
    ties = sorted(sorted(place[setting] for setting in clique) for clique in networkx.find_cliques(alike))
    between = "" if len(ties) <= len(ascii_lowercase) else " "
    return [
        (setting, between.join(_letters(i) for i, clique in enumerate(ties) if place[setting] in clique))
        for setting in order
    ]


def _letters(number: int) -> str:
    """Return a, b ... z, aa, ab ..."""
    more, last = divmod(number, len(ascii_lowercase))
    return (_letters(more - 1) if more else "") + ascii_lowercase[last]


def ranking_rows(settings: Sequence[Row], comparisons: Sequence[Row], metric: str, scored: str) -> list[dict[str, Any]]:
    """Return settings from the best one on under a metric, each with its interval and the letters of its ties.

    Settings of one model, data set and mode, after equally many edits, stand together.

    Args:
        settings: Of ``setting_summary``.
        comparisons: All of the view ``comparisons``.
    """
    names, found = names_of(settings), []
    mine = [row for row in settings if row["metric"] == metric and row["scored"] == scored]
    groups = list(dict.fromkeys(map(_group, mine)))
    for group in groups:
        here = {row["setting"]: row for row in mine if _group(row) == group}
        rows = [r for r in comparisons if _group(r) == group and r["metric"] == metric and r["scored"] == scored]
        means = {setting: row["mean"] for setting, row in here.items()}
        ordered = ranking(contrasts(rows, names), means, least_first=metric == "forgotten")
        for place, (setting, ties) in enumerate(ordered, 1):
            row = here[setting]
            interval = "–" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            found.append(
                {"rank": place, "setting": names[setting], "mean": row["mean"], "95 %": interval, "ties": ties}
                | ({"edits": row["edits"]} if len(groups) > 1 else {})
            )
    return found


def _group(row: Row) -> tuple[Any, Any]:
    """Return within what settings are compared: a model, data set and mode, and a number of edits."""
    return row["pool"], row["edits"]


def best_sentence(metric: str, scored: str, group: Sequence[Contrast]) -> str:
    """Return which of some settings is best under a metric, and from which others it cannot be told."""
    names = {each.row["setting"]: each.name for each in group} | {
        each.row["other_setting"]: each.other_name for each in group
    }
    seen: dict[str, list[float]] = {}
    for each in group:
        seen.setdefault(each.row["setting"], []).append(each.row["mean"])
        seen.setdefault(each.row["other_setting"], []).append(each.row["other_mean"])
    means = {setting: sum(values) / len(values) for setting, values in seen.items()}
    best = ranking(group, means, least_first=metric == "forgotten")[0][0]
    mine = [each for each in group if best in (each.row["setting"], each.row["other_setting"])]
    other = {id(each): each.other_name if each.row["setting"] == best else each.name for each in mine}
    ahead = each_ahead(best, mine, least=metric == "forgotten")
    ties = [other[id(each)] for each in mine if not each.is_told]
    beaten = [other[id(each)] for each in mine if each.is_told and id(each) not in ahead]
    text = f"{names[best]} {_BEST[metric]} {_WHEN[scored]} ({means[best]:.3f})"
    if ties:
        text += f", and cannot be told from {_listed(ties)}"
    if beaten:
        text += f"{'; it is' if ties else ', and is'} told from {_listed(beaten)}"
    if ahead:
        text += f"; over the facts that both edited, {_listed([other[key] for key in ahead])} is better"
    return f"{text}."


def each_ahead(best: str, mine: Sequence[Contrast], *, least: bool) -> list[int]:
    """Return the contrasts, by identity, in which another setting is told better than the best one."""
    sign = -1 if least else 1
    return [
        id(each)
        for each in mine
        if each.is_told and (sign * each.row["difference"] > 0) != (each.row["setting"] == best)
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


DIMENSIONS = ("batch_size", "layers", "preset", "protocol", "hparams", "contexts", "moments", "guard", "editor")
"""In what settings may differ, as ``comparisons.differs_in`` names it."""


def differs_only_in(row: Row, dimension: str) -> bool:
    """Return whether two settings differ in nothing else; editors have layers and numbers of their own."""
    found = set(row["differs_in"])
    own = {"editor", "layers", "preset", "contexts"} if dimension == "editor" else {dimension}
    return dimension in found and not found - own


def differ_in_one_thing(row: Row) -> bool:
    """Return whether two settings differ in one dimension alone."""
    return any(differs_only_in(row, dimension) for dimension in DIMENSIONS)


def simplest(rows: Sequence[Row]) -> list[Row]:
    """Return the comparisons of settings that differ in one thing alone; where there are none, all."""
    return [row for row in rows if differ_in_one_thing(row)] or list(rows)


def answers(rows: Sequence[Contrast], metric: str, scored: str) -> list[tuple[str, list[str]]]:
    """Return, for each dimension in which some settings alone differ, what is best under a metric, in sentences.

    Where settings differ in several things at once, which setting is.
    """
    found = []
    asked = [each for each in rows if (each.row["metric"], each.row["scored"]) == (metric, scored)]
    groups = list(dict.fromkeys(_group(each.row) for each in rows))
    parts = {dimension: [each for each in asked if differs_only_in(each.row, dimension)] for dimension in DIMENSIONS}
    parts["setting"] = [] if any(parts.values()) else asked
    for dimension, mine in parts.items():
        said = []
        for group in groups:
            after = f" After {group[1]} edits." if len(groups) > 1 else ""
            here = [each for each in mine if _group(each.row) == group]
            said += [_answer(part, metric, scored) + after for part in _connected(here)]
        if said:
            found.append((f"Which {_SAID.get(dimension, dimension)} {_BEST[metric]}?", said))
    return found


_SAID = {"batch_size": "batch size", "layers": "choice of layers", "hparams": "choice of hyper-parameters"}


def _answer(group: Sequence[Contrast], metric: str, scored: str) -> str:
    return group[0].sentence() if len(group) == 1 else best_sentence(metric, scored, group)


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
        runs: Rows with ``run_id``, ``setting``, ``n_judged``, ``collapsed_at``, and ``lost_at``, the first checkpoint at
            which both were lost.
    """
    of_edits = [run for run in runs if run["setting"] is not None]
    judged = [run for run in of_edits if run["n_judged"]]
    fallen = [run for run in judged if run["collapsed_at"] is not None]
    recovered = [run for run in judged if run["collapsed_at"] is None and run["lost_at"] is not None]
    said = [
        f"{run['run_id']} has lost what it knew and what it was taught by {run['collapsed_at']} edits."
        for run in fallen
    ]
    said += [
        f"{run['run_id']} had lost both after {run['lost_at']} edits, and not any more at its last checkpoint."
        for run in recovered
    ]
    others = len(judged) - len(fallen) - len(recovered)
    if others:
        who = "No run" if others == len(judged) else "No other run"
        said.append(f"{who} that could be judged ({len(judged)}) has lost both at any checkpoint.")
    if judged and len(judged) < len(of_edits):
        said.append(f"No checkpoint can say it of the others ({len(of_edits) - len(judged)}).")
    return "Did a model collapse?", said
