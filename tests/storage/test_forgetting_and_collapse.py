"""What views say of runs that forget and collapse, on hand-made rows whose numbers can be told by eye."""

from pathlib import Path
from typing import Any

import pytest

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import BASELINE, RUN, fill, one, run_row, score


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def unedited(store: Store, n_facts: int, *, knows: bool = True, answers: list[dict[str, Any]] | None = None) -> None:
    """The run that the others are compared with: it knows all neighbors, or none."""
    scores = [
        score(i, i, -1, purpose="baseline", good=knows if kind == "neighborhood" else False, kind=kind)
        for i in range(n_facts)
        for kind in ("rewrite", "neighborhood")
    ]
    tables = {
        "runs": [run_row(BASELINE, editor="none")],
        "fact_scores": scores,
        "benchmark_answers": answers or [],
    }
    store.commit(BASELINE, "baseline", tables, CommitInfo(kind="baseline"))


def collapsed_at(store: Store) -> Any:
    return one(store, f"SELECT collapsed_at FROM run_summary WHERE run_id = '{RUN}'")["collapsed_at"]


LOST = {(at, i): False for at in (12, 16, 20) for i in range(at)}
FAILED: dict[int, bool | None] = {i: False for i in range(8, 20)}


def test_collapse_is_dated_to_the_first_checkpoint_of_a_lasting_fall(store: Store) -> None:
    dip = {(8, i): False for i in range(8)}  # a dip of retention alone is no collapse
    unedited(store, 20)
    fill(store, 20, own=FAILED, kept=LOST | dip, every=4)
    assert collapsed_at(store) == 12
    curve = query(
        store, "SELECT edits, neighborhood_accuracy, neighborhood_level, lost FROM collapse_curve"
    ).to_pylist()
    assert [row["neighborhood_accuracy"] for row in curve] == [1, 1, 0, 0, 0]
    assert [row["lost"] for row in curve] == [False, False, True, True, True]
    assert {row["neighborhood_level"] for row in curve} == {1}


def test_a_recovered_fall_is_no_collapse(store: Store) -> None:
    unedited(store, 20)
    fill(store, 20, own={i: False for i in range(8, 12)}, kept={(12, i): False for i in range(12)}, every=4)
    assert collapsed_at(store) is None


def test_a_model_destroyed_in_its_first_round_collapses_at_its_first_checkpoint(store: Store) -> None:
    """Fine-tuning at a great learning rate: the model says each new edit, and nothing else that it has known."""
    unedited(store, 8)
    kept = {(at, i): i == at - 1 for at in (4, 8) for i in range(at)}
    fill(store, 8, own={}, kept=kept, every=4, neighbors=False)
    assert collapsed_at(store) == 4
    row = one(store, "SELECT new_edits_accuracy, retention_accuracy, n_scored FROM collapse_curve WHERE edits = 4")
    assert row == {"new_edits_accuracy": 1, "retention_accuracy": 0, "n_scored": 3}


def test_an_editor_without_effect_leaves_a_sound_model(store: Store) -> None:
    """No edit works or is kept, and all that the model knew is there."""
    unedited(store, 8)
    fill(store, 8, own={i: False for i in range(8)}, kept={(at, i): False for at in (4, 8) for i in range(at)}, every=4,
         neighbors=True)  # fmt: skip
    assert collapsed_at(store) is None


def test_without_a_level_no_model_has_collapsed(store: Store) -> None:
    """No baseline is there, or it knows none of the neighbors: there is nothing that could have been lost."""
    fill(store, 20, own=FAILED, kept=LOST, every=4)
    assert collapsed_at(store) is None
    unedited(store, 20, knows=False)
    assert collapsed_at(store) is None
    assert one(store, f"SELECT n_judged FROM run_summary WHERE run_id = '{RUN}'") == {"n_judged": 0}


def test_a_benchmark_judges_where_the_unedited_model_knows_no_neighbor(store: Store) -> None:
    unedited(store, 4, knows=False, answers=answers(-1, ""))
    fill(store, 4, own={}, kept={(4, i): False for i in range(4)}, every=4, neighbors=False)
    store.commit(RUN, "questions-4-a", {"benchmark_answers": answers(3, "yes")}, CommitInfo(kind="questions"))
    assert collapsed_at(store) == 4


def test_neighbors_alone_do_not_say_that_a_model_has_collapsed(store: Store) -> None:
    """A run of one round: nothing has followed its edit."""
    unedited(store, 1, answers=answers(-1, ""))
    fill(store, 1, own={}, kept={(1, 0): False}, every=1, neighbors=False)
    row = one(store, "SELECT neighborhood_accuracy, retention_accuracy, is_judged, lost FROM collapse_curve")
    assert row == {"neighborhood_accuracy": 0, "retention_accuracy": None, "is_judged": False, "lost": False}
    assert collapsed_at(store) is None
    assert one(store, f"SELECT n_judged FROM run_summary WHERE run_id = '{RUN}'") == {"n_judged": 0}
    store.commit(RUN, "questions-1-a", {"benchmark_answers": answers(0, "yes")}, CommitInfo(kind="questions"))
    assert collapsed_at(store) == 1, "beside a benchmark they do"


def test_independent_batches_forget_nothing(store: Store) -> None:
    unedited(store, 8)
    fill(store, 8, own={}, kept={(at, i): False for at in (4, 8) for i in range(at)}, every=4, neighbors=False)
    tables = {"runs": [run_row("memit-b1-alone", mode="independent")], "fact_scores": [
        score(i, i, at, purpose=purpose, good=purpose == "own") for i in range(4)
        for purpose, at in (("own", i), ("retention", 3))
    ]}  # fmt: skip
    store.commit("memit-b1-alone", "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=4))
    for view in ("forgetting_curve", "retention_by_age", "retention_summary", "collapse_curve"):
        found = {row["run_id"] for row in query(store, f"SELECT run_id FROM {view}").to_pylist()}
        assert found == {RUN}, view
    assert one(store, "SELECT forgotten FROM run_summary WHERE run_id = 'memit-b1-alone'") == {"forgotten": None}


def test_the_last_checkpoint_is_summed_up_also_where_it_found_nothing(store: Store) -> None:
    """A sampled check of no earlier edit: what the one before had found is not its own."""
    rows = [score(i, i, i, purpose="own", good=True) for i in range(8)]
    rows += [score(0, 0, 3, purpose="retention", good=False), score(7, 7, 7, purpose="retention", good=True)]
    store.commit(RUN, "segment-000000", {"runs": [run_row()], "fact_scores": rows}, CommitInfo(kind="segment"))
    row = one(store, "SELECT edits, forgotten, forgotten_ever, recovered FROM retention_summary")
    assert row == {"edits": 8, "forgotten": None, "forgotten_ever": None, "recovered": None}


def answers(scored_at: int, said: str, n: int = 8) -> list[dict[str, Any]]:
    """Answers to questions with two labels, of which each is right for half; all right if ``said`` is empty."""
    golds = ["yes" if i % 2 else "no" for i in range(n)]
    return [
        {
            "benchmark": "toy", "questions_run_id": "questions-toy", "scored_at": scored_at, "edits_so_far": scored_at + 1,
            "example_id": f"e{i}", "subset": "", "labels": ["no", "yes"], "gold": gold, "predicted": said or gold,
            "correct": (said or gold) == gold, "value": float((said or gold) == gold), "outcome": "answered",
            "n_shots": 0, "shots_from": "none",
        }
        for i, gold in enumerate(golds)
    ]  # fmt: skip


def test_a_benchmark_is_lost_half_of_the_way_from_guessing(store: Store) -> None:
    """One label for all questions has an F1 of a third, a guess of a half: no model falls below half of 0.6."""
    unedited(store, 4, answers=answers(-1, ""))
    fill(store, 4, own={}, kept={(4, i): False for i in range(4)}, every=4, neighbors=False)
    assert collapsed_at(store) == 4
    store.commit(RUN, "questions-4-a", {"benchmark_answers": answers(3, "")}, CommitInfo(kind="questions"))
    row = one(store, "SELECT benchmark_score, benchmark_level, benchmark_guessed, lost FROM collapse_curve")
    assert row == {"benchmark_score": 1, "benchmark_level": 1, "benchmark_guessed": 0.5, "lost": False}


def test_one_label_for_every_question_is_a_lost_benchmark(store: Store) -> None:
    unedited(store, 4, answers=answers(-1, ""))
    fill(store, 4, own={}, kept={(4, i): False for i in range(4)}, every=4, neighbors=False)
    store.commit(RUN, "questions-4-a", {"benchmark_answers": answers(3, "yes")}, CommitInfo(kind="questions"))
    row = one(store, "SELECT benchmark_score, lost, collapsed FROM collapse_curve")
    assert row == {"benchmark_score": pytest.approx(1 / 3), "lost": True, "collapsed": True}


def batches(store: Store, run_id: str, batch_size: int, n_edits: int, *, wrong: int, editor: str = "memit") -> None:
    """A run whose last checkpoint finds its first ``wrong`` edits wrong."""
    n_rounds = n_edits // batch_size
    edits = [{"round": i // batch_size, "position": i, "fact_id": f"f{i}"} for i in range(n_edits)]

    def row(i: int, at: int, purpose: str, good: bool) -> dict[str, Any]:
        return score(i, i // batch_size, at, purpose=purpose, good=good) | {"edits_so_far": (at + 1) * batch_size}

    scores = [row(i, i // batch_size, "own", True) for i in range(n_edits)]
    scores += [row(i, n_rounds - 1, "retention", i >= wrong) for i in range(n_edits)]
    tables = {
        "runs": [run_row(run_id, editor=editor, batch_size=batch_size)], "edits": edits, "fact_scores": scores
    }  # fmt: skip
    store.commit(run_id, "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=n_rounds))


def test_batch_sizes_are_compared_at_an_age_that_all_have(store: Store) -> None:
    """Of 100 edits, 5 of the first 10 are wrong: the shares differ only by how many are counted."""
    for size in (10, 50, 100):
        batches(store, f"memit-b{size}", size, 100, wrong=5)
    batches(store, "memit-b20-more", 20, 200, wrong=5)
    rows = query(
        store,
        "SELECT edits, batch_size, mean, from_age, n FROM setting_summary WHERE metric = 'forgotten' ORDER BY ALL",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (100, 10, 5 / 50, 50, 50),
        (100, 50, 5 / 50, 50, 50),
        (200, 20, 5 / 180, 20, 180),
    ]
    alone = query(
        store, "SELECT batch_size, forgotten, n_right_when_applied FROM run_summary WHERE edits = 100"
    ).to_pylist()
    assert [tuple(row.values()) for row in alone] == [(10, 5 / 90, 90), (50, 5 / 50, 50), (100, None, 0)]
    last = query(store, "SELECT n_scored, retention, retention_accuracy FROM forgetting_curve WHERE batch_size = 100")
    assert last.to_pylist() == [{"n_scored": 0, "retention": None, "retention_accuracy": None}]
    assert query(store, "SELECT run_id FROM retention_by_age WHERE batch_size = 100").num_rows == 0
