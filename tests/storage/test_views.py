"""The marts on hand-made rows whose numbers can be told by eye, and the declared column checks."""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storage.commits import CommitInfo
from storage.errors import QueryError
from storage.marts import marts, public_marts
from storage.sql import TABLES, named_in, open_store, query, query_many
from storage.store import Store

RUN = "memit-b1-hand"
BASELINE = "none-b1-hand"


def run_row(run_id: str = RUN, **changes: Any) -> dict[str, Any]:
    row = {
        "model": "m",
        "editor": "memit",
        "layers": [0],
        "batch_size": 1,
        "mode": "sequential",
        "sample": 0,
        "seed": 0,
        "protocol": "corrected",
        "algorithm_version": 1,
        "hparams_digest": "h",
        "baseline_run_id": BASELINE,
    }
    return row | changes


def score(
    fact: int, edited: int, scored: int, *, purpose: str, good: bool | None, kind: str = "rewrite"
) -> dict[str, Any]:
    """One probe of two tokens; ``good`` None is a NaN of a collapsed model."""
    new, true = (None, None) if good is None else ((1.0, 4.0) if good else (4.0, 1.0))
    if kind == "neighborhood" and good is not None:
        new, true = true, new
    return {
        "purpose": purpose,
        "fact_id": f"f{fact}",
        "probe_id": f"f{fact}/{kind}/0",
        "kind": kind,
        "edited_at": edited,
        "scored_at": scored,
        "edits_so_far": scored + 1,
        "nll_new": new,
        "n_new": 2,
        "nll_true": true,
        "n_true": 2,
        "n_correct_new": 2 if good and kind != "neighborhood" else 0,
        "n_correct_true": 2 if good and kind == "neighborhood" else 0,
        "is_nan": good is None,
    }


def fill(
    store: Store,
    n_edits: int,
    *,
    own: Mapping[int, bool | None],
    kept: Mapping[tuple[int, int], bool | None],
    every: int,
    neighbors: bool | None = None,
) -> None:
    """A run of ``n_edits`` single edits; ``own`` and ``kept`` name the failures (edit) and (checkpoint, edit).

    Neighbors fare as the edits do, unless ``neighbors`` says how.
    """
    edits = [{"round": i, "position": i, "fact_id": f"f{i}"} for i in range(n_edits)]
    rounds = [
        {"round": i, "edits_so_far": i + 1, "parameter": "w", "outcome": "edited", "update_norm": 1.0, "drift": 0.1 * i}
        for i in range(n_edits)
    ]
    scores = [
        score(
            i, i, i, purpose="own", good=good if kind != "neighborhood" or neighbors is None else neighbors, kind=kind
        )
        for i in range(n_edits)
        for good in (own.get(i, True),)
        for kind in ("rewrite", "paraphrase", "neighborhood")
    ]
    scores += [
        score(i, i, at - 1, purpose="retention", good=kept.get((at, i), True))
        for at in range(every, n_edits + 1, every)
        for i in range(at)
    ]
    tables = {"runs": [run_row()], "edits": edits, "rounds": rounds, "fact_scores": scores}
    store.commit(RUN, "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=n_edits))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def one(store: Store, sql: str) -> dict[str, Any]:
    (row,) = query(store.location, sql).to_pylist()
    return row


def test_rates_forgetting_and_their_cumulative_twin(store: Store) -> None:
    # Edit 1 never worked; edit 0 is wrong at checkpoint 4 and right again at 8; edit 5 is wrong at 8. Nothing follows edit 3 at
    # checkpoint 4, nor edit 7 at 8.
    fill(store, 8, own={1: False}, kept={(4, 0): False, (4, 1): False, (8, 1): False, (8, 5): False}, every=4)
    rows = query(
        store.location, "SELECT edits, forgotten, forgotten_ever, n_right_when_applied FROM forgetting_curve"
    ).to_pylist()
    assert rows == [
        {"edits": 4, "forgotten": 1 / 2, "forgotten_ever": 1 / 2, "n_right_when_applied": 2},
        {"edits": 8, "forgotten": 1 / 6, "forgotten_ever": 2 / 6, "n_right_when_applied": 6},
    ]
    summary = one(store, "SELECT * FROM run_summary")
    assert summary["efficacy"] == 7 / 8 and summary["neighborhood"] == 7 / 8
    assert summary["score"] == pytest.approx(7 / 8) and summary["forgotten"] == 1 / 6
    assert summary["edits"] == 8 and summary["drift"] == pytest.approx(0.7) and summary["collapsed_at"] is None


def test_what_two_commands_have_both_scored_counts_once(store: Store) -> None:
    """With other samples of earlier edits, or other sizes of the baseline; also when two stores are put together."""
    fill(store, 8, own={1: False}, kept={(4, 0): False, (8, 5): False}, every=4)
    views = (
        "forgetting_curve",
        "probe_outcomes",
        "protocol_scores",
        "retention_by_age",
        "run_summary",
        "joint_edits",
        "runs",
    )
    columns = {"runs": "EXCLUDE (unit_id, attempt)"}

    def seen() -> list[Any]:
        return [query(store, f"SELECT * {columns.get(v, '')} FROM {v} ORDER BY ALL").to_pylist() for v in views]

    before = seen()
    again = [score(i, i, 7, purpose="retention", good=i != 5) for i in (2, 5, 7)]
    again += [score(i, i, i, purpose="own", good=True, kind="paraphrase") for i in (0, 2)]
    store.commit(RUN, "retention-000008-b", {"runs": [run_row()], "fact_scores": again}, CommitInfo(kind="retention"))
    assert query(store, "SELECT count(*) AS n FROM fact_scores").to_pylist() == [{"n": 24 + 12 + 5}]
    assert seen() == before


def test_every_public_view_is_answered_with_no_more_than_it_reads(store: Store) -> None:
    fill(store, 4, own={}, kept={}, every=2)
    with open_store(store.location) as everything:
        for view in public_marts():
            expected = everything.sql(f"SELECT count(*) AS n FROM {view}").fetchall()
            assert [(row["n"],) for row in query(store, f"SELECT count(*) AS n FROM {view}").to_pylist()] == expected, (
                view
            )


def rounded(table: pa.Table) -> list[Any]:
    """Return rows whose floats are alike where only the order differed in which numbers were added up."""

    def plain(value: Any) -> Any:
        return float(f"{value:.12g}") if isinstance(value, float) else value

    return [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]


def test_a_mart_in_front_of_a_statement_answers_as_its_view_does(store: Store) -> None:
    fill(store, 8, own={1: False}, kept={(4, 0): False, (8, 1): False}, every=4)
    for view in public_marts():
        plain, behind = query_many(
            store, [f"FROM {view} ORDER BY ALL;", f"WITH it AS (FROM {view}) FROM it ORDER BY ALL"]
        )
        assert rounded(plain) == rounded(behind), view
    asked = "SELECT run_id, edits, forgotten FROM {} WHERE edits > 4 ORDER BY edits"
    assert query(store, asked.format("forgetting_curve")).equals(query(store, asked.format("main.forgetting_curve")))


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ('SELECT count(*) AS "a;b" FROM run_summary', [{"a;b": 1}]),
        ("-- how many\nSELECT count(*) AS n FROM run_summary", [{"n": 1}]),
        ("SELECT count(*) AS n FROM run_summary -- in all", [{"n": 1}]),
        ("SELECT column_type FROM (DESCRIBE run_summary) WHERE column_name = 'edits'", [{"column_type": "BIGINT"}]),
        (
            "SELECT a.edits, b.edits FROM run_summary AS a JOIN run_summary AS b USING (run_id)",
            [{"edits": 4, "edits_1": 4}],
        ),
    ],
)
def test_statements_of_every_form_may_name_marts(store: Store, sql: str, rows: list[dict[str, Any]]) -> None:
    fill(store, 4, own={}, kept={}, every=4)
    assert query(store, sql).to_pylist() == rows


def test_what_is_wrong_with_a_statement_is_said_in_its_own_terms(store: Store) -> None:
    fill(store, 4, own={}, kept={}, every=4)
    with pytest.raises(QueryError, match=r'^Binder Error: Referenced column "nope" not found in FROM clause!'):
        query(store, "SELECT nope FROM run_summary")


@pytest.mark.timeout(60, method="thread")
def test_the_first_rows_of_many_outcomes_are_found(tmp_path: Path) -> None:
    """DuckDB 2.0.0 waited for ever where rows that it kept for two readers met a LIMIT; less than these are no test of it."""
    store, info = Store(tmp_path / "many", create=True), CommitInfo(kind="segment", first_round=0, last_round=1)
    scores = [score(i, 0, 0, purpose="own", good=True) for i in range(40_000)]
    for run_id in ("one", "other"):
        store.commit(run_id, "segment-000000", {"runs": [run_row(run_id)], "fact_scores": scores}, info)
    assert query(store, "SELECT * FROM probe_outcomes LIMIT 3").column("nll_mean").to_pylist() == [1, 1, 1]


def test_windows_roll_over_edits(store: Store) -> None:
    fill(store, 8, own={7: False}, kept={}, every=4)
    five = one(store, "SELECT efficacy, n_edits FROM editing_curve WHERE window_edits = 5 AND edits = 8")
    fifty = one(store, "SELECT efficacy, n_edits FROM editing_curve WHERE window_edits = 50 AND edits = 8")
    assert five == {"efficacy": 4 / 5, "n_edits": 5} and fifty == {"efficacy": 7 / 8, "n_edits": 8}


def test_a_null_score_counts_as_a_failure(store: Store) -> None:
    fill(store, 4, own={3: None}, kept={(4, 2): None}, every=4)
    assert one(store, "SELECT efficacy, neighborhood FROM run_summary") == {"efficacy": 3 / 4, "neighborhood": 3 / 4}
    assert one(store, "SELECT n_forgotten FROM forgetting_curve") == {"n_forgotten": 1}


def test_a_tie_fails_on_both_sides(store: Store) -> None:
    tie = score(0, 0, 0, purpose="own", good=True) | {"nll_new": 2.0, "nll_true": 2.0}
    near = tie | {"kind": "neighborhood", "probe_id": "f0/neighborhood/0"}
    other = tie | {"kind": "paraphrase", "probe_id": "f0/paraphrase/0"}
    edits = [{"round": 0, "position": 0, "fact_id": "f0"}]
    tables = {"runs": [run_row()], "edits": edits, "fact_scores": [tie, near, other]}
    store.commit(RUN, "segment-000000", tables, CommitInfo(kind="segment"))
    summary = one(store, "SELECT efficacy, paraphrase, neighborhood, score FROM run_summary")
    assert set(summary.values()) == {0}


def check_columns(root: Path) -> list[str]:
    """Return every declared check that a store's views break."""
    broken: list[str] = []
    with closing(open_store(root)) as connection:
        for view, rules in ((name, marts()[name].rules) for name in public_marts()):
            key = ", ".join(rules["unique"])
            wrong = [f"SELECT {key} FROM checked GROUP BY {key} HAVING count(*) > 1"]
            wrong += [f"SELECT * FROM checked WHERE {column} IS NULL" for column in rules["not_null"]]
            wrong += [f"SELECT * FROM checked WHERE {column} NOT BETWEEN 0 AND 1" for column in rules.get("rates", ())]
            wrong += [
                f"SELECT * FROM checked WHERE {column} NOT IN ({', '.join(repr(value) for value in values)})"
                for column, values in rules.get("accepted", {}).items()
            ]
            for column, target in rules.get("references", {}).items():
                table, _, other = target.partition(".")
                wrong.append(f"SELECT * FROM checked WHERE {column} NOT IN (SELECT {other} FROM {table})")
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE checked AS SELECT * FROM {view}"
            )  # each view is computed once
            broken += [f"{view}: {sql}" for sql in wrong if connection.execute(sql).fetchone()]
    return broken


def test_marts_read_what_duckdb_says_they_read(tmp_path: Path) -> None:
    """Their order follows from words behind FROM and JOIN, which must be all tables that the parser sees."""
    for name, mart in marts().items():
        with duckdb.connect() as parser:
            (answer,) = parser.execute("SELECT json_serialize_sql($1)", [mart.sql]).fetchone() or ("",)
        tree = json.loads(answer)
        assert not tree["error"], name
        steps = {entry["key"] for entry in tree["statements"][0]["node"]["cte_map"]["map"]}
        named = {table for table in tables_in(tree) if table in marts() or table in TABLES}
        assert named - steps == mart.reads & (marts().keys() | set(TABLES)) - steps, name
    assert list(marts()).index("run_summary") > list(marts()).index("collapse_curve")


def tables_in(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        own = {tree["table_name"]} if tree.get("type") == "BASE_TABLE" else set()
        return own.union(*map(tables_in, tree.values()))
    return set[str]().union(*map(tables_in, tree)) if isinstance(tree, list) else set()


def test_a_statement_names_what_it_reads_and_not_what_it_says() -> None:
    assert named_in("SELECT 'see drift_curve' AS run_summary_note FROM runs") == ["runs"]
    assert named_in("WITH a AS (FROM DRIFT_CURVE) SELECT (SELECT count(*) FROM a) FROM Edits") == [
        "drift_curve",
        "edits",
    ]
    assert named_in("PIVOT run_summary ON editor USING avg(score)") == ["run_summary"], "the parser tells nothing of it"
    assert named_in("FROM query_table('run_summary')") == ["run_summary"]


def test_every_public_view_declares_its_columns() -> None:
    assert all(marts()[name].rules.keys() >= {"unique", "not_null"} for name in public_marts())


def test_declared_columns_hold_and_the_check_can_fail(store: Store) -> None:
    fill(store, 8, own={1: False}, kept={}, every=4)
    assert check_columns(store.location) == []
    bad = {"runs": [run_row(editor=None, mode="sideways")]}
    store.commit("run-bad", "segment-000000", bad, CommitInfo(kind="segment"))
    broken = "\n".join(check_columns(store.location))
    assert "editor IS NULL" in broken and "mode NOT IN" in broken


def test_many_statements_about_one_view_are_answered_alike(store: Store) -> None:
    """From three on it is computed once for all of them."""
    fill(store, 8, own={1: False}, kept={(4, 0): False, (8, 1): False}, every=4)
    sql = ["SELECT edits, retention FROM forgetting_curve", "FROM forgetting_curve WHERE edits > 4", "FROM run_summary"]
    once = [rounded(query(store, each)) for each in sql]
    assert [rounded(table) for table in query_many(store, [*sql, *sql, *sql])] == once * 3
