"""The table that a run ends with: one row per setting, each edit at its own time beside all of them on the final model."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.reports.labels import labelled
from tasks.reports.tables import format_cell

Row = Mapping[str, Any]
SETTINGS = """SELECT * FROM setting_summary"""
RUNS = """
    SELECT run_id, setting, s.edits, s.collapsed_at, s.lost_at, s.n_judged, s.model, s.editor, s.layers, s.batch_size
    FROM run_summary AS s JOIN run_columns USING (run_id)
"""
_COLUMNS = {
    ("own", "efficacy"): "ES",
    ("own", "paraphrase"): "PS",
    ("own", "neighborhood"): "NS",
    ("own", "score"): "S",
    ("final", "efficacy"): "final ES",
    ("final", "paraphrase"): "PS ",
    ("final", "neighborhood"): "NS ",
    ("final", "score"): "S ",
    ("final", "forgotten"): "forgotten",
    ("final", "benchmark_f1"): "F1",
    ("final", "benchmark_accuracy"): "accuracy",
    ("final", "drift"): "drift",
}
"""Titles by when and what is measured.  Those on the final model follow each other; a blank tells equal ones apart."""
_WITH_INTERVAL = ("score", "forgotten", "benchmark_f1", "benchmark_accuracy")


HEADLINES = """
    SELECT DISTINCT coalesce(spec->'definition'->'metrics'->>0, 'accuracy') AS metric FROM commits WHERE kind = 'questions'
"""
"""The metrics that the benchmarks' definitions name first."""


def summary_rows(
    settings: Sequence[Row], runs: Sequence[Row], headlines: Sequence[Row] = ({"metric": "f1"},)
) -> list[dict[str, str]]:
    """Return the rows of the table.

    Args:
        settings: Of ``SETTINGS``.
        runs: Of ``RUNS``.
        headlines: Of ``HEADLINES``: F1 is shown where a benchmark's first metric is one, accuracy where one's is another.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in labelled(settings):
        line = found.setdefault((row["setting"], row["edits"]), row | {"seen": {}})
        line["seen"][row["scored"], row["metric"]] = row
    rows = [_line(line, [run for run in runs if _is_of(run, line)]) for line in found.values()]
    dropped = {column for column in ("group", "runs") if all(row[column] in ("", "1") for row in rows)}
    firsts = {str(row["metric"]).startswith("f1") for row in headlines}
    dropped |= {"accuracy"} if False not in firsts else {"F1"} if True not in firsts else set()
    return [{name: row[name] for name in row if name not in dropped} for row in rows]


def with_interval(row: Row | None, *, plain: bool = False) -> str:
    """Return a rate with its interval of 95 %, as people read it: ``0.942 .92–.96``."""
    if row is None:
        return "–"
    mean = format_cell(float(row["mean"]))
    if plain or row["low"] is None:
        return mean
    return f"{mean} {_end(row['low'])}–{_end(row['high'])}"


def _end(value: float) -> str:
    return {"0.00": "0", "1.00": "1"}.get(text := f"{value:.2f}", text.removeprefix("0"))


def _line(line: Row, runs: Sequence[Row]) -> dict[str, str]:
    seen, judged = line["seen"], [run["collapsed_at"] for run in runs if run["n_judged"]]
    name = runs[0]["run_id"] if len(runs) == 1 else str(line["label"])
    found = {"group": str(line["group"]), "run": name, "runs": str(len(runs))}
    further = str(line["label"]).removeprefix(f"{line['editor']} b{line['batch_size']}").strip()
    if len(runs) == 1 and further:
        found["run"] = f"{name} {further}"
    found["edits"] = str(line["edits"])
    for (scored, metric), title in _COLUMNS.items():
        found[title] = with_interval(seen.get((scored, metric)), plain=metric not in _WITH_INTERVAL)
    found["collapsed"] = "–" if not any(judged) else ", ".join(str(at or "–") for at in dict.fromkeys(judged))
    return found


def _is_of(run: Row, line: Row) -> bool:
    return bool(run["setting"] == line["setting"] and run["edits"] == line["edits"])
