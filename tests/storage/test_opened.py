"""A store, or several, as Python asks them."""

from pathlib import Path

import pytest

from storage.cleaning import remove_run
from storage.errors import QueryError, StorageError
from storage.opened import open as open_store
from storage.several import names_of, query_any
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import fill


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    for name, failed in (("one", {}), ("two", {0: False, 1: False})):
        fill(Store(tmp_path / name, create=True), 4, own=failed, kept={}, every=4)
    return {name: str(tmp_path / name) for name in ("one", "two")}


def test_answers_are_frames_and_views_are_attributes(places: dict[str, str]) -> None:
    store = open_store(places["one"])
    sql = "SELECT editor, efficacy FROM run_summary"
    assert (
        store.sql(sql).df().to_dict("records")
        == store.sql(sql).pl().to_dicts()
        == [{"editor": "memit", "efficacy": 1.0}]
    )
    assert store.run_summary.filter("efficacy = 1").fetchall() == store.sql("FROM run_summary").fetchall()
    assert "run_summary" in dir(store) and store.names()["run_summary"].startswith("One row per run")
    with pytest.raises(AttributeError, match="no table or view 'run_sumary'; did you mean run_summary"):
        _ = store.run_sumary
    with pytest.raises(StorageError, match="no store at"):
        open_store("nowhere")


def test_an_open_store_sees_what_has_changed_since(places: dict[str, str]) -> None:
    store = open_store(places["one"])
    assert len(store.run_summary.fetchall()) == 1
    (run_id,) = Store(places["one"]).run_ids()
    remove_run(Store(places["one"]), run_id)
    assert store.run_summary.fetchall() == []


def test_several_stores_stand_side_by_side(places: dict[str, str]) -> None:
    joined = "SELECT a.efficacy, b.efficacy AS other FROM one.run_summary AS a JOIN two.run_summary AS b USING (editor)"
    assert query_any(places, joined).to_pylist() == [{"efficacy": 1.0, "other": 0.5}]
    together = query_any(places, "SELECT store, efficacy FROM run_summary ORDER BY store").to_pylist()
    assert together == [{"store": "one", "efficacy": 1.0}, {"store": "two", "efficacy": 0.5}]
    assert open_store(places).run_summary.count("store").fetchall() == [(2,)]
    assert query_any(places, "SHOW TABLES").to_pylist() == query(places["one"], "SHOW TABLES").to_pylist()
    with_cte = "WITH e AS (SELECT store, efficacy FROM run_summary) SELECT count(*) AS n FROM e"
    assert query_any(places, with_cte).to_pylist() == [{"n": 2}]
    assert query_any(places["one"], "SELECT 1 AS n").to_pylist() == query(places["one"], "SELECT 1 AS n").to_pylist()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("FROM three.run_summary", "no store is called 'three'; expected one of"),
        ("FROM one.run_sumary", "no table or view 'run_sumary'"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE x AS SELECT 1", "expected one SELECT"),
        ("SELECT efficasy FROM one.run_summary", "efficasy"),
        ("FROM read_csv('/etc/passwd')", "Permission|disabled"),
    ],
)
def test_what_cannot_be_asked_of_several(places: dict[str, str], sql: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        query_any(places, sql)
    with pytest.raises(QueryError, match="only reads"):
        query_any(places, "SELECT 1", write=True)


@pytest.mark.parametrize("name", ["main", "temp", "information_schema", "o'brien", 'a"b', "", "two three"])
def test_names_that_no_store_can_have(places: dict[str, str], name: str) -> None:
    with pytest.raises(QueryError, match="a store cannot be called"):
        query_any({name: places["one"], "b": places["two"]}, "SELECT 1")
    with pytest.raises(QueryError, match="one name"):
        query_any({"A": places["one"], "a": places["two"]}, "SELECT 1")


def test_a_store_that_is_not_there_is_told_of_at_once(places: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="no store at"):
        open_store({"a": places["one"], "b": "nowhere"})
    assert query_any({"One": places["one"], "b": places["two"]}, "SELECT efficacy FROM ONE.run_summary").num_rows == 1


def test_stores_are_named_by_their_places() -> None:
    assert names_of(["results/a"]) == "results/a" and names_of(["x=results/a"]) == {"x": "results/a"}
    assert names_of(["results/a/", "b=s3://bucket/c"]) == {"a": "results/a/", "b": "s3://bucket/c"}
    assert names_of(["/data/lr=0.1/store"]) == "/data/lr=0.1/store", "the equals sign is the place's own"
    with pytest.raises(QueryError, match="two stores are called 'a'; give names"):
        names_of(["x/a", "y/a"])
