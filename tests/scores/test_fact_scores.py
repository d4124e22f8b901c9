"""Every scoring protocol on hand-made rows whose outcome can be told by eye: ties, NaN, several tokens, empty answers."""

from pathlib import Path
from typing import Any

import pytest

from tests.scores.rows import ask, probe, store_of

RUN = "memit-b1-hand"
PROTOCOLS = ("nll_mean", "nll_sum", "argmax", "token", "exact", "contained", "agreement")


def outcome(tmp_path: Path, row: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return how one probe fares; ``base``: its row of the unedited model."""
    runs: dict[str, dict[str, Any]] = {RUN: {"baseline_run_id": "none-b1-hand" if base else None}}
    scores = {RUN: [row]}
    if base is not None:
        runs["none-b1-hand"] = {"editor": "none"}
        scores["none-b1-hand"] = [base | {"purpose": "baseline", "edited_at": None, "scored_at": -1, "edits_so_far": 0}]
    store = store_of(tmp_path, runs, scores)
    (found,) = ask(store, f"SELECT {', '.join(PROTOCOLS)} FROM probe_outcomes WHERE run_id = '{RUN}'")
    return found


HALF = {"argmax": 0, "token": 0.5}
FAIL = {"nll_mean": 0, "nll_sum": 0}


@pytest.mark.parametrize("kind", ["rewrite", "neighborhood"])
@pytest.mark.parametrize(
    ("new", "expected"),
    [
        # of a rewrite probe (new, true); of a neighborhood probe the other way round: (nll, tokens, right tokens)
        (((1.0, 2, 2), (4.0, 2, 0)), {"nll_mean": 1, "nll_sum": 1, "argmax": 1, "token": 1.0}),
        (((2.0, 2, 1), (2.0, 2, 0)), FAIL | HALF),  # a tie fails
        (((3.0, 3, 3), (2.0, 1, 0)), {"nll_mean": 1, "nll_sum": 0}),  # shorter in all, likelier per token
        (((2.0, 1, 1), (3.0, 3, 0)), {"nll_mean": 0, "nll_sum": 1}),
        (((0.0, 1, 1), (0.0, 1, 1)), FAIL | {"argmax": 1, "token": 1.0}),
        (((9.0, 3, 1), (1.0, 1, 1)), FAIL | {"argmax": 0, "token": 1 / 3}),
    ],
)
def test_teacher_forcing(kind: str, new: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    wanted, other = new if kind == "rewrite" else reversed(new)
    keys = [("nll_new", "n_new", "n_correct_new"), ("nll_true", "n_true", "n_correct_true")]
    values = dict(zip(keys[0], wanted, strict=True)) | dict(zip(keys[1], other, strict=True))
    found = outcome(tmp_path, probe("f", kind, **values))
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_nan_fails_everything_and_is_said(tmp_path: Path) -> None:
    lost = {"nll_new": None, "nll_true": None, "n_correct_new": 0, "n_correct_true": 0, "is_nan": True}
    for number, kind in enumerate(("rewrite", "neighborhood")):
        row = probe("f", kind, **lost)
        assert outcome(tmp_path / str(number), row, probe("f", kind)) == dict.fromkeys(PROTOCOLS, 0)
    half = probe("f", **lost | {"nll_true": 1.0})
    found = outcome(tmp_path / "half", half)
    assert found["nll_mean"] == found["nll_sum"] == 0, "an answer without a number is no success of the other"


@pytest.mark.parametrize(
    ("text", "exact", "contained"),
    [
        (" New York. It is", 1, 1),
        (" New York", 1, 1),
        ("\nNew York\nIt", 1, 1),
        ("New York, the city", 1, 1),
        (" New Yorker", 0, 1),  # another word
        (" New York City", 0, 1),  # the answer goes on
        (" the city of New York.", 0, 1),
        (" new york.", 0, 0),  # letter by letter
        (" Newark", 0, 0),
        (" New York.5", 0, 1),  # no clause ends in a number
        (" New York。", 1, 1),
        (" New York's", 0, 1),
        ("", 0, 0),
        (None, None, None),  # not asked for
    ],
)
def test_free_running_text(text: str | None, exact: Any, contained: Any, tmp_path: Path) -> None:
    found = outcome(tmp_path, probe("f", text=text))
    assert (found["exact"], found["contained"]) == (exact, contained)


def test_text_of_a_neighbor_expects_the_true_answer(tmp_path: Path) -> None:
    assert outcome(tmp_path / "a", probe("f", "neighborhood", text=" Old York."))["exact"] == 1
    assert outcome(tmp_path / "b", probe("f", "neighborhood", text=" New York."))["exact"] == 0


@pytest.mark.parametrize(("argmax", "agreement"), [([3, 4], 1), ([3, 9], 0.5), ([4, 3], 0)])
def test_agreement_with_the_unedited_model(argmax: list[int], agreement: float, tmp_path: Path) -> None:
    """EasyEdit's locality: token by token, whether or not either is right."""
    wrong = {"n_correct_true": 0}
    row = probe("f", "neighborhood", argmax_true=argmax, **wrong)
    found = outcome(tmp_path, row, probe("f", "neighborhood", **wrong))
    assert found["agreement"] == agreement and found["argmax"] == 0
    assert outcome(tmp_path / "alone", row)["agreement"] is None, "no unedited model, no agreement"


def test_scores_are_means_over_a_facts_prompts_first(tmp_path: Path) -> None:
    """Fact a: one of four paraphrases holds; fact b: its only one: (1/4 + 1) / 2, not 2/5."""
    good = [probe("a", "paraphrase", 0), probe("b", "paraphrase", 0)]
    bad = [probe("a", "paraphrase", i, nll_new=9.0, n_correct_new=0, text=" no") for i in (1, 2, 3)]
    rest = [probe(fact, kind) for fact in "ab" for kind in ("rewrite", "neighborhood")]
    store = store_of(tmp_path, {RUN: {}}, {RUN: [*good, *bad, *rest]})
    rows = {row["scoring_protocol"]: row for row in ask(store, "SELECT * FROM protocol_scores")}
    assert len(rows) == 7
    for name, row in rows.items():
        if name == "easyedit":
            assert row["neighborhood"] is None and row["score"] is None, "there is no unedited model"
            continue
        assert (row["efficacy"], row["paraphrase"], row["neighborhood"]) == (1, 0.625, 1)
        assert row["score"] == pytest.approx(3 / (1 + 1 / 0.625 + 1)) and row["n_facts"] == 2


def test_a_zero_makes_the_score_zero(tmp_path: Path) -> None:
    rows = [probe("a"), probe("a", "paraphrase", nll_new=9.0), probe("a", "neighborhood")]
    store = store_of(tmp_path, {RUN: {}}, {RUN: rows})
    (found,) = ask(store, "SELECT paraphrase, score FROM protocol_scores WHERE scoring_protocol = 'nll_mean'")
    assert found == {"paraphrase": 0, "score": 0}


def test_rankings_flip_with_the_protocol(tmp_path: Path) -> None:
    """One run wins by likelihood, the other by what it says; a third, worse at both, stays where it is."""

    def run(n_preferred: int, n_said: int) -> list[dict[str, Any]]:
        rows = []
        for i in range(4):
            rows.append(
                probe(f"f{i}", nll_new=1.0 if i < n_preferred else 9.0, text=" New York" if i < n_said else " x")
            )
            rows += [probe(f"f{i}", "paraphrase"), probe(f"f{i}", "neighborhood")]
        return rows

    runs = {"rome-b1-x": {"editor": "rome"}, "ft-b1-x": {"editor": "ft"}, "no-b1-x": {"editor": "malmen"}}
    scores = {"rome-b1-x": run(3, 2), "ft-b1-x": run(2, 3), "no-b1-x": run(1, 1)}
    store = store_of(tmp_path, runs, scores)
    rows = ask(store, "SELECT * FROM ranking_flips WHERE metric = 'score'")
    found = {(row["scoring_protocol"], row["editor"]): row for row in rows}
    assert found["nll_mean", "rome"]["rank"] == 1 and found["nll_mean", "ft"]["rank"] == 2
    exact = {editor: found["exact", editor] for editor in ("rome", "ft", "malmen")}
    assert [(row["rank"], row["rank_by_nll_mean"], row["n_flips"]) for row in exact.values()] == [
        (2, 1, 1),
        (1, 2, 1),
        (3, 3, 0),
    ]
    assert all(row["rank"] == 1 and row["n_flips"] == 0 for key, row in found.items() if key[0] == "argmax"), (
        "all equal"
    )


def test_rankings_compare_runs_of_the_same_facts_only(tmp_path: Path) -> None:
    """A run that is half done, and one of the same model in another precision, stand alone."""
    rows = [probe(f"f{i}", kind) for i in range(3) for kind in ("rewrite", "paraphrase", "neighborhood")]
    half, worse = rows[:3], [*rows[:6], *(row | {"nll_new": 9.0} for row in rows[6:])]
    runs = {"a": {"editor": "rome"}, "b": {"editor": "ft"}, "half": {"editor": "memit"}, "low": {"dtype": "bfloat16"}}
    store = store_of(tmp_path, runs, {"a": rows, "b": worse, "half": half, "low": worse})
    found = ask(
        store,
        "SELECT run_id, n_facts, rank FROM ranking_flips WHERE metric = 'efficacy' AND scoring_protocol = 'nll_mean'",
    )
    assert {row["run_id"]: (row["n_facts"], row["rank"]) for row in found} == {
        "a": (3, 1),
        "b": (3, 2),
        "half": (1, 1),
        "low": (3, 1),
    }


# --- retention


def history(checks: dict[int, list[bool]]) -> list[dict[str, Any]]:
    """Edits 0, 1, 2 ... right when applied; ``checks`` says which of the first so many a checkpoint finds right."""
    rows = [probe(f"f{i}", edited_at=i, scored_at=i, edits_so_far=i + 1) for i in range(max(checks))]
    for at, right in checks.items():
        rows += [
            probe(
                f"f{i}",
                purpose="retention",
                edited_at=i,
                scored_at=at - 1,
                edits_so_far=at,
                n_correct_new=2 if good else 1,
            )
            for i, good in enumerate(right)
        ]
    return rows


def test_forgotten_now_ever_and_recovered(tmp_path: Path) -> None:
    checks = {2: [False, True], 4: [True, False, True, True], 6: [True, True, False, True, False, True]}
    store = store_of(tmp_path, {RUN: {}}, {RUN: history(checks)})
    rows = ask(store, "SELECT edits, forgotten, forgotten_ever, recovered FROM forgetting_curve")
    assert rows == [
        {"edits": 2, "forgotten": 1.0, "forgotten_ever": 1.0, "recovered": 0.0},
        {"edits": 4, "forgotten": pytest.approx(1 / 3), "forgotten_ever": pytest.approx(2 / 3), "recovered": 0.5},
        {
            "edits": 6,
            "forgotten": pytest.approx(2 / 5),
            "forgotten_ever": pytest.approx(4 / 5),
            "recovered": pytest.approx(2 / 4),
        },
    ]
    (summary,) = ask(store, "SELECT edits, forgotten, forgotten_ever, recovered FROM retention_summary")
    assert summary == rows[-1]


def test_an_edit_that_never_worked_cannot_be_forgotten(tmp_path: Path) -> None:
    rows = history({3: [False, True, True]})
    rows[0] |= {"n_correct_new": 1}
    store = store_of(tmp_path, {RUN: {}}, {RUN: rows})
    (found,) = ask(store, "SELECT n_right_when_applied, forgotten, retention_accuracy FROM forgetting_curve")
    assert found == {"n_right_when_applied": 1, "forgotten": 0, "retention_accuracy": 0.5}


def test_half_life_by_age(tmp_path: Path) -> None:
    """Every edit is right for five further edits, and then lost."""
    n = 20
    store = store_of(tmp_path, {RUN: {}}, {RUN: history({at: [at - i <= 6 for i in range(at)] for at in (10, n)})})
    rows = ask(store, "SELECT part, youngest, oldest, n_checks, retained FROM retention_by_age")
    assert [row["part"] for row in rows] == list(range(10)) and sum(row["n_checks"] for row in rows) == 28
    assert all(
        row["retained"] == (1 if row["oldest"] <= 5 else 0) for row in rows if not row["youngest"] <= 5 < row["oldest"]
    )
    (found,) = ask(store, "SELECT half_life FROM retention_summary")
    assert 5 <= found["half_life"] <= 7
    kept = store_of(tmp_path / "kept", {RUN: {}}, {RUN: history({4: [True] * 4})})
    assert ask(kept, "SELECT half_life FROM retention_summary") == [{"half_life": None}]


def test_questions_and_completions(tmp_path: Path) -> None:
    """Three of four edits are right as written; of these one as a completion."""
    rows = [probe(f"f{i}", n_correct_new=2 if i < 3 else 0) for i in range(4)]
    rows += [probe(f"f{i}", "completion", n_correct_new=2 if i in (0, 3) else 1, text=" x") for i in range(4)]
    store = store_of(tmp_path, {RUN: {}}, {RUN: rows})
    (found,) = ask(store, "SELECT * FROM question_completion")
    assert found["rewrite_accuracy"] == 0.75 and found["completion_accuracy"] == 0.5
    assert found["completion_if_rewritten"] == pytest.approx(1 / 3) and found["completion_contained"] == 0
    assert found["question_accuracy"] is None
    assert found["n_facts"] == 4 and found["n_rewritten"] == 3
    plain = store_of(tmp_path / "plain", {RUN: {}}, {RUN: [probe("f")]})
    assert ask(plain, "SELECT * FROM question_completion") == []
