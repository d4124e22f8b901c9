"""What is said of a plan's runs when they have ended."""

from storage.sql import query_many
from storage.store import Store
from tasks.driver.plan import Plan, shown_in_report, with_known_layers
from tasks.reports.report import others
from tasks.reports.summary import HEADLINES, RUNS, SETTINGS, summary_rows
from tasks.reports.warnings import DOUBTS, warnings_of


def summary_of(plan: Plan) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Return the rows of the table that a run ends with, and what makes its results doubtful."""
    store = Store(plan.store)
    shown = shown_in_report(plan, with_known_layers(plan, store))
    statements = [SETTINGS, RUNS, HEADLINES, DOUBTS]
    settings, runs, headlines, doubts = query_many(store, statements, unseen=others(store, shown))
    rows = summary_rows(settings.to_pylist(), runs.to_pylist(), headlines.to_pylist())
    return rows, tuple(f"warning: {each}" for each in warnings_of(doubts.to_pylist()))
