"""One page of a paper: its claims with verdicts, and its figures as small pictures beside their numbers."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from storage.sql import query_many
from storage.store import Store
from tasks.reports.charts import chart, in_common_colours, picture
from tasks.reports.panels import panel
from tasks.reports.pictures import statement
from tasks.reports.tables import format_cell
from tasks.reports.verdicts import Judged


class Shown(NamedTuple):
    """A table or figure of the paper."""

    name: str
    title: str
    pictures: Sequence[tuple[str, str, bool]]
    """Panel, condition, and whether samples are apart."""
    table: str | None
    excused: str | None


def write_page(
    store: Store, name: str, title: str, items: Sequence[Shown], judged: Sequence[Judged], *, unseen: Collection[str]
) -> str:
    """Write ``<store>/paper-<name>.html``; return where it is.  No network is needed to open it."""
    wanted = [(item.name, *each) for item in items for each in item.pictures]
    panels = [(item, found, where, apart) for item, key, where, apart in wanted if (found := panel(key))]
    tabled = [item for item in items if item.table]
    statements = [statement(found, where, apart=apart) for _, found, where, apart in panels]
    tables = [
        table.to_pylist() for table in query_many(store, [*statements, *(str(i.table) for i in tabled)], unseen=unseen)
    ]
    charts = {
        place: made
        for place, ((_, found, _, _), rows) in enumerate(zip(panels, tables, strict=False))
        if (made := chart(found, rows)) is not None
    }
    drawn: dict[str, list[Markup]] = {}
    for place, made in in_common_colours(charts).items():
        drawn.setdefault(panels[place][0], []).append(Markup(picture(made, "svg").decode()))
    rows_of: Mapping[str, list[dict[str, Any]]] = {
        item.name: rows for item, rows in zip(tabled, tables[len(panels) :], strict=True)
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True)
    )
    environment.filters["cell"] = format_cell
    page = environment.get_template("paper.html.jinja").render(
        title=title, items=items, judged=judged, drawn=drawn, rows_of=rows_of
    )
    store.files.write(f"paper-{name}.html", page.encode())
    return f"{store.location}/paper-{name}.html"
