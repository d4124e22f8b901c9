"""Whether a report shows what its store holds now."""

import re
from collections.abc import Collection
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import storage
from storage.digests import digest_of, digest_of_file
from storage.store import Store

_MARK = re.compile(r'<meta name="made-of" content="(\w+)">')


def report_name(title: str) -> str:
    """Return the name of the file that a report of this title is."""
    return "report.html" if title == "report" else f"report-{title}.html"


def current_report(store: Store, run_ids: Collection[str], title: str) -> str | None:
    """Return where a report is that was made of what the store holds now, by the code that is here now; None if none is."""
    with suppress(FileNotFoundError):
        page = store.files.read(report_name(title))[:2000].decode("utf-8", "replace")
        found = _MARK.search(page)
        if found and found[1] == made_of(store, run_ids):
            return f"{store.location}/{report_name(title)}"
    return None


def made_of(store: Store, run_ids: Collection[str] | None) -> str:
    """Return a digest of all that a report of these runs is made of: commits, of which a view may read any, and code."""
    commits = [
        [run_id, unit_id, row["attempt"], row["kind"], row["recipe"]]
        for run_id in store.run_ids()
        for unit_id, row in store.commit_rows(run_id).items()
    ]
    folders = [Path(__file__).parent, Path(storage.__path__[0])]
    code = [digest_of_file(path) for folder in folders for path in sorted(folder.rglob("*.*")) if path.suffix != ".pyc"]
    return digest_of(
        {"runs": run_ids and sorted(run_ids), "commits": sorted(map(str, commits)), "code": code, "by": _versions()}
    )


def _versions() -> list[str]:
    return [metadata.version(name) for name in ("vl-convert-python", "duckdb", "jinja2", "scipy")]
