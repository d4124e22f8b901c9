"""What a run has found, as artifacts on Prefect's pages: the summary, the figures, and where the report is."""

import logging
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException

from tasks.driver.heartbeat import artifact_key
from tasks.reports.report import Report

_log = logging.getLogger(__name__)


def show_report(name: str, report: Report) -> None:
    """Show a report to those who look at Prefect's pages; nothing is done outside of a task."""
    if TaskRunContext.get() is None:
        return
    try:
        _publish(name, report)
    except (httpx.HTTPError, PrefectException) as error:
        _log.warning("Prefect's server does not take the results (%s); they are in %s", error, report.location)


def _publish(name: str, report: Report) -> None:
    create_table_artifact(
        report.summary, key=artifact_key("summary", name), description=f"Runs of {name}: the view setting_summary"
    )
    pages = [
        f"## {title}\n\n![{title}](data:image/png;base64,{b64encode(image).decode()})\n"
        for title, image in report.pictures().items()
    ]
    create_markdown_artifact("\n".join(pages), key=artifact_key("figures", name), description=f"Figures of {name}")
    create_link_artifact(
        _address(report.location),
        link_text=report.location,
        key=artifact_key("report", name),
        description=f"The report of {name}, one HTML file",
    )


def _address(location: str) -> str:
    return location if "://" in location else f"file://{quote(str(Path(location)))}"
