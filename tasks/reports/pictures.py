"""One figure of a store as a file."""

import json
from difflib import get_close_matches
from pathlib import Path

from storage.sql import query
from storage.statements import refuse_below
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.charts import chart, picture
from tasks.reports.panels import PANELS, Panel, panel
from tasks.reports.tables import write_table

KINDS = ("svg", "pdf", "png", "html", "csv", "json")


def statement(panel: Panel, where: str = "true", *, apart: bool = False) -> str:
    """Return the query whose rows a panel shows."""
    view = {"setting_curve": "run_curve"}.get(panel.view, panel.view) if apart else panel.view
    return f"SELECT * FROM {view} WHERE ({panel.where}) AND ({where})"


def draw(place: str, name: str, out: Path, *, where: str = "true", apart: bool = False) -> str:
    """Draw a figure into a file whose ending says of which kind; return what was written.

    Args:
        where: A further condition on the rows.
        apart: A line for each run, in place of settings over their samples and seeds.

    Raises:
        InputError: No such figure or kind, or nothing to show.
        QueryError: ``where`` is no condition on the view's columns.
    """
    found = panel(name)
    if found is None:
        known = [each.name for each in PANELS]
        near = get_close_matches(name, known, n=3)
        raise InputError(f"no figure {name!r}; expected one of {near or known} (`palimpsest list figures`)")
    kind = out.suffix.removeprefix(".")
    if kind not in KINDS:
        raise InputError(f"--out {out}: expected a file that ends on one of {['.' + each for each in KINDS]}")
    if apart and found.view != "setting_curve":
        raise InputError(f"--apart: figure {name!r} is no curve of settings; leave it out")
    store = Store(place)
    refuse_below(out, str(out), [store.files.folder.resolve()])
    rows = query(store, statement(found, where, apart=apart))
    made = chart(found, rows.to_pylist())
    if made is None:
        raise InputError(f"figure {name!r} has nothing to show in {store.location}, of {rows.num_rows} rows")
    if kind == "csv":
        write_table(rows, "csv", out)
    else:
        _write(out, json.dumps(made, indent=1).encode() if kind == "json" else picture(made, kind))
    return f"{out}: {rows.num_rows} rows of {name}"


def _write(out: Path, content: bytes) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out}: expected a file in a directory that is there")
    out.write_bytes(content)
