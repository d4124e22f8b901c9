"""One SQL statement over several stores, each under a name of its own, as databases are attached."""

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import PurePosixPath

import duckdb
import pyarrow as pa

from storage.errors import QueryError
from storage.marts import marts
from storage.sql import TABLES, base_tables, query, tree_of
from storage.statements import lists_tables
from storage.store import Store

Place = str | Store | Mapping[str, str]
"""A store, or several by name."""
_OWN = "this_statement_alone"
_RESERVED = {"main", "temp", "system", "pg_catalog", "information_schema", "memory"}
"""Schemas and databases that DuckDB has already."""


def query_any(places: Place, sql: str, *, write: bool = False) -> pa.Table:
    """Run one SQL statement over a store as :func:`storage.sql.query` does, or over several, each under its name.

    Of several, ``a.run_summary`` is the one of store ``a``; a name without a store is that of all together, with a column
    ``store``.  What the statement names is read into memory.

    Raises:
        StorageError: There is no store, or it has another schema version.
        QueryError: DuckDB refuses the statement, or names no store or table that is there.
    """
    if not isinstance(places, Mapping):
        return query(places, sql, write=write)
    if write:
        raise QueryError("a statement over several stores only reads; leave --write out, or ask one store")
    check_places(places)
    places = {name.casefold(): place for name, place in places.items()}
    if lists_tables(sql):  # they are the same in all
        return query(next(iter(places.values())), sql)
    named = _named(sql)
    unknown = sorted({store for store, _ in named if store} - places.keys())
    if unknown:
        raise QueryError(f"no store is called {unknown[0]!r}; expected one of {sorted(places)}")
    with closing(duckdb.connect()) as connection:
        for name in places:
            connection.execute(f'CREATE SCHEMA "{name}"')
        for store, table in named:
            _make(connection, places, store, table)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            answer = connection.sql(sql)
            return pa.table({}) if answer is None else answer.to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(str(error).split("LINE ")[0].strip()) from None


def names_of(stores: list[str]) -> str | dict[str, str]:
    """Return a store's place, or of several their places by name: ``NAME=PLACE``, or the last part of the place.

    Raises:
        QueryError: Two have the same name.
    """
    if len(stores) == 1 and _named_place(stores[0])[1] == stores[0]:
        return stores[0]
    found: dict[str, str] = {}
    for given in stores:
        name, place = _named_place(given)
        if name.casefold() in {each.casefold() for each in found}:
            raise QueryError(f"two stores are called {name!r}; give names: --store a={found[name]} --store b={place}")
        found[name] = place
    return found


def _named_place(given: str) -> tuple[str, str]:
    """Return name and place of a store; a place may have an equals sign of its own."""
    named = re.fullmatch(r"(\w[\w-]*)=(.+)", given)
    return (named.group(1), named.group(2)) if named else (PurePosixPath(given.rstrip("/")).name, given)


def check_places(places: Mapping[str, str]) -> None:
    """Refuse names that cannot be those of stores in a statement.

    Raises:
        QueryError: Says which, and why.
    """
    for name in places:
        if not re.fullmatch(r"\w[\w-]*", name) or name.casefold() in _RESERVED:
            raise QueryError(
                f"a store cannot be called {name!r}; expected letters, digits, dash and underscore, and none of "
                f"{sorted(_RESERVED)}: give another name, as --store a={places[name]}"
            )
    if len({name.casefold() for name in places}) < len(places):
        raise QueryError(f"two of the stores {list(places)} have one name; SQL takes capitals for small letters")


def _make(connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], store: str, table: str) -> None:
    """Make one table of a store, or of all with a column that says of which."""
    if store:
        rows = query(places[store], f"FROM {table}")
        connection.register(_OWN, rows)
        connection.execute(f'CREATE TABLE "{store}".{table} AS FROM {_OWN}')
        connection.unregister(_OWN)
        return
    for number, (name, place) in enumerate(places.items()):
        rows = query(place, f"FROM {table}")
        connection.register(_OWN, rows)
        kept = f"SELECT '{name}' AS store, * FROM {_OWN}"
        connection.execute(f"CREATE TABLE {table} AS {kept}" if number == 0 else f"INSERT INTO {table} BY NAME {kept}")
        connection.unregister(_OWN)


def _named(sql: str) -> list[tuple[str, str]]:
    """Return the tables and views that a statement names, each with its store, empty where none is named."""
    tree = tree_of(sql)
    if tree["error"]:
        raise QueryError(f"{tree.get('error_message', 'not a statement')}; expected one SELECT over several stores")
    known = {*TABLES, *marts()}
    named = dict.fromkeys((store.casefold(), table.lower()) for store, table in base_tables(tree))
    if wrong := [table for store, table in named if store and table not in known]:
        raise QueryError(f"no table or view {wrong[0]!r}; `palimpsest list views` lists them")
    return [(store, table) for store, table in named if table in known]
