"""Sentences and tables that say what a store shows."""

import itertools
import re
from pathlib import Path

import pytest

from storage.sql import query, query_many
from storage.store import Store
from tasks.reports.findings import COMPARISONS, Contrast, answers, contrasts, holm, names_of, ranking, verdicts_on_runs
from tasks.reports.report import others, write_report
from tasks.reports.summary import RUNS, SETTINGS, summary_rows
from tests.storage.test_settings import always, run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    run(made, "a", always, facts=range(100), batch_size=5, final=lambda fact, kind: fact >= 10)
    run(made, "b", always, facts=range(100), batch_size=50, final=lambda fact, kind: fact >= 40)
    run(made, "c", always, facts=range(100), batch_size=10, final=lambda fact, kind: fact >= 11)
    return made


def said(store: Store, metric: str, scored: str = "final") -> list[tuple[str, list[str]]]:
    settings, rows = (table.to_pylist() for table in query_many(store, [SETTINGS, COMPARISONS]))
    return answers(contrasts([row for row in rows if row["metric"] == metric], names_of(settings)), metric, scored)


def test_what_is_best_is_said_with_what_it_cannot_be_told_from(store: Store) -> None:
    assert said(store, "efficacy") == [
        ("Which batch size has the highest efficacy?", [
            "memit b5 has the highest efficacy on the final model (0.900), and cannot be told from memit b10; it is told from "
            "memit b50."
        ])
    ]  # fmt: skip


def test_a_pair_is_said_with_difference_and_interval(tmp_path: Path) -> None:
    store = Store(tmp_path / "pair", create=True)
    run(store, "a", always, facts=range(100), batch_size=5, final=always)
    run(
        store,
        "b",
        always,
        facts=range(100),
        batch_size=50,
        final=lambda fact, kind: kind != "neighborhood" or fact >= 30,
    )
    ((question, (sentence,)),) = said(store, "neighborhood")
    assert question == "Which batch size keeps most neighborhoods?"
    assert re.fullmatch(
        r"memit b5 keeps 30\.0 points more neighborhoods than memit b50 \(on the final model; 95 % 20\.\d to 38\.\d, "
        r"100 paired facts, p < 0\.001\)\.", sentence
    ), sentence  # fmt: skip
    ((_, (sentence,)),) = said(store, "efficacy")
    assert sentence.startswith(
        "No difference can be told between memit b5 and memit b50 in efficacy on the final model (0.0 points"
    )


def test_holm_is_as_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def told(*pairs: tuple[str, str, float]) -> list[Contrast]:
    """Contrasts that are more than noise: which settings, and by how much the first is higher."""
    return [
        Contrast({"setting": a, "other_setting": b, "difference": by, "low": by - 0.01, "high": by + 0.01, "mean": 0.5 + by,
                  "other_mean": 0.5}, a, b, 0.001)
        for a, b, by in pairs
    ]  # fmt: skip


def test_ties_of_a_ranking_have_a_letter_in_common() -> None:
    means = {"x": 0.9, "y": 0.8, "z": 0.5}
    assert ranking(told(("x", "z", 0.4)), means, least_first=False) == [("x", "a"), ("y", "ab"), ("z", "b")]
    every = told(("x", "z", 0.4), ("y", "z", 0.3), ("x", "y", 0.1))
    assert ranking(every, means, least_first=False) == [("x", "a"), ("y", "b"), ("z", "c")]
    assert ranking(told(("x", "z", 0.4)), means, least_first=True)[0] == ("z", "a"), (
        "of what is forgotten, least is best"
    )
    four = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
    ties = dict(ranking(told(("b", "c", 0.1)), four, least_first=False))
    for one, other in itertools.combinations(four, 2):
        assert bool(set(ties[one]) & set(ties[other])) != ({one, other} == {"b", "c"})


def test_ties_beyond_the_alphabet_have_two_letters() -> None:
    """Of 60 settings each is told from all but its neighbor: 59 ties, written apart from one another."""
    means = {f"s{i:02d}": 1 - i / 100 for i in range(60)}
    apart = [(a, b, 0.1) for a, b in itertools.combinations(means, 2) if int(b[1:]) - int(a[1:]) > 1]
    found = ranking(told(*apart), means, least_first=False)
    assert [name for name, _ in found] == list(means)
    assert found[0][1] == "a" and found[26][1] == "z aa" and found[27][1] == "aa ab" and found[59][1] == "bg"


def test_pairs_go_before_means_over_other_facts(tmp_path: Path) -> None:
    """b10 has an easy sample alone, on which b1 is better than it; over both samples b1's mean is lower."""
    store = Store(tmp_path / "unequal", create=True)
    most = lambda fact, kind: fact >= 90  # noqa: E731
    for size in (1, 5):
        run(store, f"b{size}-hard", most, facts=range(100), sample=0, batch_size=size, final=most)
        run(store, f"b{size}-easy", always, facts=range(100, 200), sample=1, batch_size=size, final=always)
    run(store, "b10", always, facts=range(100, 200), sample=1, batch_size=10, final=lambda fact, kind: fact >= 115)
    ((_, (sentence,)),) = said(store, "efficacy")
    assert not sentence.startswith("memit b10") and "told from memit b10" in sentence


def test_names_of_settings_are_never_alike(tmp_path: Path) -> None:
    store = Store(tmp_path / "grid", create=True)
    for layer in (0, 1, 2):
        for size in (1, 5, 10):
            run(store, f"{layer}-{size}", always, facts=range(20), layers=[layer], batch_size=size, final=always)
    names = names_of(query(store, SETTINGS).to_pylist())
    assert len(set(names.values())) == 9 and "memit b5 layer 2" in names.values()
    for _, sentences in said(store, "score"):
        assert all("layer" in sentence for sentence in sentences)


def test_runs_that_collapsed_are_named() -> None:
    row = {"run_id": "a", "setting": "s", "n_judged": 4, "collapsed_at": None, "lost_at": None}
    baseline, unjudged = row | {"setting": None, "n_judged": 0}, row | {"n_judged": 0}
    none = "No run that could be judged (1) has lost both at any checkpoint."
    assert verdicts_on_runs([row, baseline])[1] == [none]
    assert verdicts_on_runs([row, unjudged])[1] == [none, "No checkpoint can say it of the others (1)."]
    fallen = row | {"run_id": "ft-b1-x", "collapsed_at": 100, "lost_at": 50}
    recovered = row | {"run_id": "rome-b1-y", "lost_at": 8}
    assert verdicts_on_runs([row, fallen, recovered])[1] == [
        "ft-b1-x has lost what it knew and what it was taught by 100 edits.",
        "rome-b1-y had lost both after 8 edits, and not any more at its last checkpoint.",
        "No other run that could be judged (3) has lost both at any checkpoint.",
    ]
    assert verdicts_on_runs([unjudged, baseline])[1] == []


def table_of(store: Store) -> list[dict[str, str]]:
    return summary_rows(*(table.to_pylist() for table in query_many(store, [SETTINGS, RUNS])))


def test_the_table_has_both_times_and_intervals_and_fits(store: Store) -> None:
    rows = table_of(store)
    assert [row["run"] for row in rows] == ["a", "c", "b"]
    assert rows[0]["ES"] == "1.000" and rows[0]["final ES"] == "0.900" and rows[2]["S "].startswith("0.600 .5")
    assert all(re.fullmatch(r"[01]\.\d{3} (\.\d\d|0)–(\.\d\d|1)", row["S"]) for row in rows)
    widths = [max(len(str(row[name])) for row in [*rows, {name: name for name in rows[0]}]) + 2 for name in rows[0]]
    assert sum(widths) + len("emmet-b50-f427674fc0") <= 144


def test_samples_are_one_row_and_grids_are_told_apart(store: Store) -> None:
    run(store, "d", always, facts=range(100, 200), sample=1, batch_size=5, final=always)
    run(store, "e", always, facts=range(100), batch_size=5, layers=[3], final=always)
    rows = table_of(store)
    assert [(row["run"], row["runs"]) for row in rows] == [
        ("memit b5 layer 0", "2"), ("e layer 3", "1"), ("c", "1"), ("b", "1")
    ]  # fmt: skip


def test_a_report_shows_its_own_runs_and_no_others(store: Store) -> None:
    run(store, "other", always, facts=range(100, 200), sample=1, batch_size=5, final=lambda fact, kind: False)
    assert others(store, ["a", "b", "c"]) == {"other"} and others(store, None) == set()
    page = Path(write_report(store, ["a", "b", "c"]).location).read_text()
    assert "0.900" in page and "other" not in re.findall(r"<summary>(\w+)</summary>", page)
    whole = Path(write_report(store).location).read_text()
    assert "<summary>other</summary>" in whole and "memit b5" in whole


def test_a_report_needs_no_network_and_says_what_was_found(store: Store) -> None:
    page = Path(write_report(store, ["a", "b"], title="t").location).read_text()
    assert "ft" not in re.findall(r'(?:src|href)="([^"]+)"', page) and not re.findall(r'(?:src|href)="http', page)
    assert "memit b5 has an S that is" in page and "What was found" in page and "prefers-color-scheme: dark" in page
    assert len(page) < 6e6


def test_what_a_report_leaves_unseen_is_as_if_it_were_not_there(store: Store) -> None:
    sql = (
        "SELECT * FROM setting_summary WHERE metric = 'efficacy' AND scored = 'final' AND batch_size = 5 ORDER BY edits"
    )
    (before,) = query(store, sql).to_pylist()
    run(store, "other", always, facts=range(100, 200), sample=1, batch_size=5, final=lambda fact, kind: False)
    (table,) = query_many(store, [sql], unseen={"other"})
    (found,) = table.to_pylist()
    assert found == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in before.items()
    }
    assert query(store, sql).to_pylist()[0]["n_runs"] == 2
