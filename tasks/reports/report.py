"""One self-contained HTML report of a store: summary table, figures, and where every number comes from."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from storage.sql import query_many
from storage.store import Store
from tasks.reports.figures import FIGURES
from tasks.reports.made_of import made_of, report_name
from tasks.reports.tables import format_cell

SUMMARY_COLUMNS = (
    "run_id",
    "editor",
    "layers",
    "batch_size",
    "edits",
    "efficacy",
    "paraphrase",
    "neighborhood",
    "score",
    "forgotten",
    "drift",
    "benchmark_f1",
    "collapsed_at",
)

MOMENTS = """SELECT DISTINCT model, layer, n_texts AS texts, n_tokens AS tokens, change, digest
FROM second_moments WHERE digest IS NOT NULL ORDER BY ALL"""


class Report(NamedTuple):
    """A report that was written."""

    location: str
    summary: list[dict[str, Any]]
    """Rows of ``run_summary``."""
    figures: dict[str, str]
    """Pictures by what they show: PNG in base64."""


def write_report(store: Store, run_ids: Sequence[str] | None = None, *, title: str = "report") -> Report:
    """Write ``<store>/report.html`` (or ``report-<title>.html``); no network is needed to open it.

    Args:
        run_ids: Runs to show, with their searches and traces; all of the store if None.
    """
    runs_sql = "SELECT run_id, model, model_digest, dtype, facts_run_id, hparams, versions, device_kind FROM runs"
    mark = made_of(store, run_ids)  # before it is read: what is committed meanwhile may be missing
    views = ["run_summary", *(view for view, _ in FIGURES.values())]
    statements = [_select(view, run_ids) for view in views] + [runs_sql + _only(run_ids) + " ORDER BY run_id", MOMENTS]
    summary, *shown, runs, moments = (table.to_pylist() for table in query_many(store, statements))
    sections = [
        {"name": name, "view": view, "image": _png(draw(rows))}
        for (name, (view, draw)), rows in zip(FIGURES.items(), shown, strict=True)
        if rows
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True)
    )
    environment.filters["cell"] = format_cell
    page = environment.get_template("report.html.jinja").render(
        title=title,
        columns=SUMMARY_COLUMNS,
        summary=summary,
        sections=sections,
        runs=runs,
        moments=moments,
        made_of=mark,
    )
    name = report_name(title)
    store.files.write(name, page.encode())
    figures = {section["name"]: section["image"] for section in sections}
    return Report(f"{store.location}/{name}", summary, figures)


def _select(view: str, run_ids: Sequence[str] | None) -> str:
    grouped = (
        "batch_size_summary",
        "layer_summary",
        "trace_summary",
        "moment_curve",
        "training_curve",
    )  # not about single runs
    return f"SELECT * FROM {view}" + ("" if view in grouped else _only(run_ids))


def _only(run_ids: Sequence[str] | None) -> str:
    if run_ids is None:
        return ""
    if not run_ids:
        return " WHERE false"
    return " WHERE run_id IN (" + ", ".join(f"'{run_id}'" for run_id in run_ids) + ")"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
