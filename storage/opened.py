"""A store as Python asks it: SQL, and tables and views by their names; answers are DuckDB relations."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import duckdb
import pyarrow as pa

from storage.marts import marts, public_marts
from storage.several import Place, check_places, query_any
from storage.sql import TABLES


class OpenStore:
    """A store, or several, to ask.  Each question sees the store as it is then, also while a run goes on.

    An answer is a DuckDB relation: ``.df()`` gives a frame of pandas, ``.pl()`` one of polars, ``.to_arrow_table()`` an Arrow
    table, ``.fetchall()`` tuples; ``.filter``, ``.order`` and ``.aggregate`` go on from it.  Tables and views are attributes:
    ``store.run_summary.df()``.

    Raises:
        StorageError: There is no store, or it has another schema version.
    """

    def __init__(self, places: Place) -> None:
        self._places = places
        if isinstance(places, Mapping):
            check_places(places)
        for place in places.values() if isinstance(places, Mapping) else [places]:
            query_any(place, "SELECT 1")

    def sql(self, statement: str) -> duckdb.DuckDBPyRelation:
        """Return the answer to one SQL statement that reads tables and views; of one store also files of your own.

        Raises:
            QueryError: DuckDB refuses the statement, or it does more than read.
            DamagedFileError: A committed file is damaged.
        """
        return _relation(query_any(self._places, statement))

    def names(self) -> dict[str, str]:
        """Return the views, each with what it shows, and then the tables of raw rows."""
        return {name: marts()[name].about for name in public_marts()} | dict.fromkeys(TABLES, "raw rows")

    def __getattr__(self, name: str) -> duckdb.DuckDBPyRelation:
        if name.startswith("_"):
            raise AttributeError(name)
        known = (*TABLES, *public_marts())
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see .names()"
            raise AttributeError(f"the store has no table or view {name!r}; {hint}")
        return self.sql(f"FROM {name}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES, *public_marts()]

    def __repr__(self) -> str:
        return f"palimpsest.open({self._places!r})"


def open(place: Place | Path) -> OpenStore:
    """Open a store by its path or ``s3://BUCKET/PREFIX``, or several by name, as ``{"a": "results/a", "b": "results/b"}``.

    Of several stores, ``a.run_summary`` is a view of one of them, and ``run_summary`` the rows of all with a column ``store``.

    Raises:
        StorageError: There is no store, or it has another schema version.
    """
    return OpenStore(str(place) if isinstance(place, Path) else place)


def _relation(table: pa.Table) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(table)
