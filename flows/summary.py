"""What is said of a plan's runs when they have ended."""

from typing import NamedTuple

from storage.sql import query_many
from storage.store import Store
from tasks.driver.plan import Plan, shown_in_report, with_known_layers
from tasks.reports.beforehand import KNOWLEDGE, LAYERS, before_any_edit
from tasks.reports.report import others
from tasks.reports.summary import HEADLINES, RUNS, SETTINGS, summary_rows
from tasks.reports.warnings import DOUBTS, warnings_of


class Summary(NamedTuple):
    """What is said when a run has ended."""

    rows: list[dict[str, str]]
    """Of the table."""
    found: tuple[str, ...]
    """What was found before any edit, in sentences."""
    warnings: tuple[str, ...]
    """What makes the results doubtful."""


def summary_of(plan: Plan) -> Summary:
    """Return what is said of a plan's runs when they have ended."""
    store = Store(plan.store)
    shown = shown_in_report(plan, with_known_layers(plan, store))
    statements = [SETTINGS, RUNS, HEADLINES, DOUBTS, KNOWLEDGE, LAYERS]
    settings, runs, headlines, doubts, knowledge, layers = (
        table.to_pylist() for table in query_many(store, statements, unseen=others(store, shown))
    )
    found = (
        line
        for question, said in before_any_edit(knowledge, layers)
        for line in (question, *(f"  {each}" for each in said))
    )
    warnings = tuple(f"warning: {each}" for each in warnings_of(doubts))
    return Summary(summary_rows(settings, runs, headlines), tuple(found), warnings)
