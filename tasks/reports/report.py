"""One self-contained HTML report: what was found, figures, tables, single facts, and where every number comes from."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from storage.sql import query, query_many
from storage.store import Store
from tasks.reports.beforehand import KNOWLEDGE, LAYERS, before_any_edit
from tasks.reports.charts import Chart, chart, in_common_colours, picture
from tasks.reports.findings import (
    COMPARISONS,
    answers,
    contrasts,
    names_of,
    ranking_rows,
    simplest,
    verdicts_on_runs,
)
from tasks.reports.made_of import made_of, report_name
from tasks.reports.panels import PANELS
from tasks.reports.pictures import statement
from tasks.reports.summary import HEADLINES, RUNS, SETTINGS, summary_rows
from tasks.reports.tables import format_cell
from tasks.reports.warnings import DOUBTS, warnings_of

_INPUTS = ("facts-", "questions-", "prepare")
"""How the ids of what runs share begin."""
_ABOUT = """
    SELECT
        coalesce(list(DISTINCT model ORDER BY model), []) AS models,
        coalesce(list(DISTINCT facts ORDER BY facts), []) AS facts,
        count(*) FILTER (WHERE editor <> 'none') AS n_runs
    FROM runs
"""
_DAYS = "SELECT min(finished_at)::DATE::VARCHAR AS first, max(finished_at)::DATE::VARCHAR AS last FROM commits"
_PROVENANCE = """
    SELECT run_id, model, model_digest, dtype, facts_run_id, hparams, versions, device_kind FROM runs ORDER BY run_id
"""
_MOMENTS = """SELECT DISTINCT model, layer, n_texts AS texts, n_tokens AS tokens, change, digest
FROM second_moments WHERE digest IS NOT NULL ORDER BY ALL"""
_FACTS = """
    SELECT run_id, editor, batch_size, layers, fact_id, edited_at, scored, after_edits, prompt, expected, text, holds
    FROM edit_texts WHERE kind = 'rewrite'
    QUALIFY dense_rank() OVER (PARTITION BY run_id ORDER BY edited_at, fact_id) <= 50
"""
"""Of each run's first edits, what was said."""
_ASKED = (
    ("score", "final"),
    ("forgotten", "final"),
    ("benchmark_accuracy", "final"),
    ("neighborhood", "own"),
    ("edit_success", "own"),
)
"""What settings are compared by, and when it is scored."""


class Report(NamedTuple):
    """A report that was written."""

    location: str
    summary: list[dict[str, str]]
    """Rows of the table that a run ends with."""
    charts: dict[str, Chart]
    """By title."""

    def pictures(self) -> dict[str, bytes]:
        """Return the charts as PNG."""
        return {title: picture(each, "png") for title, each in self.charts.items()}


def write_report(store: Store, run_ids: Collection[str] | None = None, *, title: str = "report") -> Report:
    """Write ``<store>/report.html`` (or ``report-<title>.html``); no network is needed to open it.

    Args:
        run_ids: Runs, searches and traces to show; all of the store if None.
    """
    mark = made_of(store, run_ids)  # before it is read: what is committed meanwhile may be missing
    unseen = others(store, run_ids)
    texts = [
        _ABOUT,
        _DAYS,
        SETTINGS,
        RUNS,
        HEADLINES,
        COMPARISONS,
        _PROVENANCE,
        _MOMENTS,
        _FACTS,
        DOUBTS,
        KNOWLEDGE,
        LAYERS,
    ]
    tables = query_many(store, [*texts, *map(statement, PANELS)], unseen=unseen)
    (about,), (days,), settings, runs, headlines, comparisons, provenance, moments, facts, doubts, knowledge, layers = (
        table.to_pylist() for table in tables[: len(texts)]
    )
    charts = in_common_colours(
        {
            panel.title: made
            for panel, table in zip(PANELS, tables[len(texts) :], strict=True)
            if (made := chart(panel, table.to_pylist())) is not None
        }
    )
    summary = summary_rows(settings, runs, headlines)
    page = _environment().get_template("report.html.jinja").render(
        title=title,
        about=about,
        days=days,
        findings=[*before_any_edit(knowledge, layers), *_findings(settings, runs, comparisons)],
        warnings=warnings_of(doubts),
        ranking=ranking_rows(settings, comparisons, "score", "final"),
        summary=summary,
        charts=[{"title": name, "json": _json(each)} for name, each in charts.items()],
        bundle=Markup(_bundle()),
        facts=_json(_facts(facts)),
        runs=provenance,
        moments=moments,
        made_of=mark,
    )  # fmt: skip
    name = report_name(title)
    store.files.write(name, page.encode())
    return Report(f"{store.location}/{name}", summary, charts)


def others(store: Store, run_ids: Collection[str] | None) -> set[str]:
    """Return what of a store is neither of these runs nor shared by runs."""
    if run_ids is None:
        return set()
    kept = set(run_ids)
    baselines = query(store, "SELECT DISTINCT run_id, baseline_run_id FROM runs").to_pylist()
    kept |= {row["baseline_run_id"] for row in baselines if row["run_id"] in kept}
    return {run_id for run_id in store.run_ids() if run_id not in kept and not run_id.startswith(_INPUTS)}


def _findings(settings: Sequence[Any], runs: Sequence[Any], comparisons: Sequence[Any]) -> list[tuple[str, list[str]]]:
    names = names_of(settings)
    simple = simplest(comparisons)
    found = [part for part in (verdicts_on_runs(runs),) if part[1]]
    for metric, scored in _ASKED:
        mine = [row for row in simple if row["metric"] == metric and row["scored"] == scored]
        found += answers(contrasts(mine, names), metric, scored)
    return found


def _facts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what was said of each fact, in the order of time."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        fact = found.setdefault(
            (row["run_id"], row["fact_id"]),
            {
                "run": row["run_id"],
                "fact": row["fact_id"],
                "prompt": row["prompt"],
                "expected": row["expected"],
                "said": [],
            },
        )
        fact["said"].append([row["scored"], row["after_edits"], row["text"], row["holds"]])
    return list(found.values())


def _environment() -> Environment:
    found = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True))
    found.filters["cell"] = format_cell
    return found


def _json(value: Any) -> Markup:
    """Return JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _bundle() -> str:
    """Return the scripts that draw charts, for a page that needs no network."""
    import vl_convert as convert

    from tasks.reports.charts import VEGA_LITE

    return str(convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)).replace(
        "</script", "<\\/script"
    )
