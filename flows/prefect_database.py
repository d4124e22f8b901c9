"""A new store's database of Prefect's records: copied from one that is set up, which takes Prefect some ten seconds."""

import os
import sqlite3
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path

from tasks.cache import cache_folder

_NAME = "prefect.db"
_SETUP = ("alembic_version", "block_type", "block_schema", "block_schema_reference")
"""Tables whose rows are of the version, and not of the store."""


def copy_database() -> None:
    """Give Prefect's home a database that is set up already, if it has none and this version has set one up before."""
    database, template = _places()
    if database is None or database.exists():
        return
    with suppress(OSError, sqlite3.Error):
        if template.exists():
            _copy(template, database)


def keep_database() -> None:
    """Keep the database that a server has just set up, for stores to come; without what is this store's own."""
    database, template = _places()
    if database is None or template.exists() or not database.exists():
        return
    with suppress(OSError, sqlite3.Error):
        template.parent.mkdir(parents=True, exist_ok=True)
        _copy(database, template)


def _places() -> tuple[Path | None, Path]:
    """Return where the home's database is, None if it is elsewhere or no file of its own; and where one is kept."""
    template = cache_folder() / "prefect" / f"{metadata.version('prefect')}.db"
    elsewhere = any(
        name.startswith("PREFECT_API_DATABASE") or name.startswith("PREFECT_SERVER_DATABASE") for name in os.environ
    )
    home = os.environ.get("PREFECT_HOME")
    return (None if elsewhere or home is None else Path(home) / _NAME), template


def _copy(source: Path, target: Path) -> None:
    """Copy a database as a whole, or not at all; the tables of one store's runs are left empty."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(beside)) as new,
        ):
            old.backup(new)
            names = [name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                if name not in _SETUP and not name.startswith("sqlite_"):
                    new.execute(f'DELETE FROM "{name}"')
            new.commit()
        os.link(beside, target)  # never over another that has come meanwhile
    finally:
        beside.unlink(missing_ok=True)
