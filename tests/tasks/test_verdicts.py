"""Claims of papers: what makes each agree, differ, or stay undecided; planted stores flip them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.papers import load_paper, paper_names
from flows.reproduction import experiment_files
from flows.spec import SpecError
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.reports.paper_page import Shown, write_page
from tasks.reports.verdicts import Claim, Expected, Judged, judge, worst
from tests.storage.test_settings import always, run
from tests.storage.test_views import BASELINE, run_row


def row(value: float, half: float, n: int = 100) -> dict[str, Any]:
    return {"what": "x", "value": value, "low": value - half, "high": value + half, "n": n}


@pytest.mark.parametrize(
    ("expected", "value", "half", "verdict"),
    [
        (Expected(above=0), 0.2, 0.1, "agrees"),
        (Expected(above=0), -0.2, 0.1, "differs"),
        (Expected(above=0), 0.05, 0.1, "undecided"),
        (Expected(below=0), -0.2, 0.1, "agrees"),
        (Expected(within=(-0.05, 0.05)), 0.0, 0.04, "agrees"),
        (Expected(within=(-0.05, 0.05)), 0.0, 0.06, "undecided"),
        (Expected(within=(-0.05, 0.05)), 0.2, 0.1, "differs"),
        (Expected(published=0.9, tolerance=0.05), 0.92, 0.02, "agrees"),
        (Expected(published=0.9, tolerance=0.05), 0.5, 0.02, "differs"),
        (Expected(published=0.9, tolerance=0.05), 0.84, 0.02, "undecided"),
    ],
)
def test_what_a_value_says_of_a_claim(expected: Expected, value: float, half: float, verdict: str) -> None:
    assert expected.judge(row(value, half), with_numbers=True) == verdict


def test_numbers_are_judged_at_full_scale_only() -> None:
    expected = Expected(published=0.9, tolerance=0.05)
    assert expected.judge(row(0.5, 0.02), with_numbers=False) == "not run"
    both = Expected(above=0, published=0.9, tolerance=0.05)
    assert (
        both.judge(row(0.5, 0.02), with_numbers=False) == "agrees"
        and both.judge(row(0.5, 0.02), with_numbers=True) == "differs"
    )


def test_a_claim_is_as_good_as_the_worst_of_its_rows() -> None:
    assert worst(["agrees", "undecided"]) == "undecided" and worst(["agrees", "differs", "undecided"]) == "differs"
    assert worst([]) == "not run"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def verdicts(store: Store, paper: str) -> dict[str, str]:
    return {
        each.claim.name: each.verdict for each in judge(store, load_paper(paper).claims_of(None), with_numbers=True)
    }


def plant_forgetting(store: Store, rome: str, memit: str) -> None:
    """Two editors: what the paper says of ``rome`` holds for the one that is called so here."""
    facts = range(120)
    worse = {"facts": facts, "final": lambda fact, kind: fact % 2 == 0 or fact > 100, "model": "m"}
    better = {"facts": facts, "final": lambda fact, kind: fact % 6 != 0 or fact > 100, "model": "m"}
    run(store, "worse", lambda fact, kind: kind != "neighborhood" or fact < 60, editor=rome, **worse)
    run(store, "better", lambda fact, kind: kind == "neighborhood" or fact % 5 != 0, editor=memit, **better)


FORGETTING = ("rome-forgets-more", "rome-works-more-often", "memit-keeps-neighborhoods")


def test_planted_data_flip_what_the_forgetting_paper_says(store: Store, tmp_path: Path) -> None:
    plant_forgetting(store, "rome", "memit")
    found = verdicts(store, "forgetting")
    assert {found[name] for name in FORGETTING} == {"agrees"} and found["neighborhoods-suffer"] == "agrees"
    assert found["rome-edits-work"] == "agrees" and found["downstream-is-lost"] == "not run"
    other = Store(tmp_path / "other", create=True)
    plant_forgetting(other, "memit", "rome")
    found = verdicts(other, "forgetting")
    assert {found[name] for name in FORGETTING} == {"differs"}
    assert found["rome-forgets-three-times"] == "differs", "a false number"


def plant_batches(store: Store, *, falls: bool, alike: bool) -> None:
    """Batches of 4 and 64, of two editors, each alone and in a sequence of 64."""
    for editor in ("emmet", "memit"):
        for size in (4, 16, 64):
            lost = (size if falls else 70 - size) + (0 if alike or editor == "memit" else 30)
            for mode in ("independent", "sequential"):
                holds = lambda fact, kind, lost=lost: kind != "neighborhood" or fact >= lost  # noqa: E731
                run(store, f"{editor}-{size}-{mode}", holds, facts=range(128), batch_size=size, mode=mode, editor=editor,
                    model="m", final=holds if mode == "sequential" else None)  # fmt: skip


def test_planted_data_flip_what_the_llama_3_paper_says(store: Store, tmp_path: Path) -> None:
    plant_batches(store, falls=True, alike=True)
    found = verdicts(store, "llama3-batch-size")
    fall = ("memit-neighborhoods-fall", "emmet-neighborhoods-fall", "neighborhoods-fall-most")
    assert {found[name] for name in fall} == {"agrees"} and found["memit-and-emmet-alike"] == "agrees"
    other = Store(tmp_path / "other", create=True)
    plant_batches(other, falls=False, alike=False)
    found = verdicts(other, "llama3-batch-size")
    assert {found[name] for name in fall} == {"differs"} and found["memit-and-emmet-alike"] == "differs"


def plant_joint(store: Store, *, better: str, local: float) -> None:
    """64 facts at once: of ``better`` (malmen, or both others) nearly all work, of the rest a third."""
    for name, editor, preset in (
        ("malmen", "malmen", None),
        ("mend", "mend", None),
        ("sum", "malmen", "sum-of-shifts"),
    ):
        works = 60 if (name == "malmen") == (better == "malmen") else 20
        keeps = 64 * (local if name == "malmen" else 1.0)
        holds = lambda fact, kind, works=works, keeps=keeps: fact < (keeps if kind == "neighborhood" else works)  # noqa: E731
        for size in (64, 8192):
            what = {"editor": editor, "preset": preset, "batch_size": size, "mode": "independent", "model": "m"}
            run(
                store,
                f"{name}-{size}",
                holds,
                facts=range(64),
                n_neighbors=1,
                spec={"hparams": {"preset": preset}},
                **what,
            )


JOINT = ("malmen-beats-mend", "normal-equation-beats-sum")


def test_planted_data_flip_what_the_malmen_paper_says(store: Store, tmp_path: Path) -> None:
    plant_joint(store, better="malmen", local=1.0)
    found = verdicts(store, "malmen")
    assert {found[name] for name in JOINT} == {"agrees"} and found["zsre-gptj-8192"] != "agrees", "0.94 is not 0.997"
    other = Store(tmp_path / "other", create=True)
    plant_joint(other, better="others", local=0.3)
    found = verdicts(other, "malmen")
    assert {found[name] for name in JOINT} == {"differs"} and found["zsre-gptj-8192"] == "differs"
    assert found["locality-is-close"] == "differs"


def answered(right: int, edits: int, n: int = 200) -> list[dict[str, Any]]:
    """Answers to yes-or-no questions, of which the first so many are right."""
    return [
        {"benchmark": "toy", "questions_run_id": "questions-toy", "scored_at": edits - 1, "edits_so_far": edits,
         "example_id": f"e{i:03d}", "subset": "", "labels": ["no", "yes"], "gold": gold, "predicted": said,
         "correct": said == gold, "value": float(said == gold), "outcome": "answered", "n_shots": 0, "shots_from": "none"}
        for i in range(n)
        for gold in ("yes" if i % 2 else "no",)
        for said in (gold if i < right else "no" if gold == "yes" else "yes",)
    ]  # fmt: skip


def plant_abilities(store: Store, *, rome: int, grace: int, one_by_one: int, at_once: int) -> None:
    """How many of 200 questions are right after 100 edits; all are before, and after one."""
    row = run_row(BASELINE, editor="none", model="m")
    store.commit(BASELINE, "b", {"runs": [row], "benchmark_answers": answered(200, 0)}, CommitInfo(kind="benchmark"))
    for name, editor, size, right in (
        ("rome", "rome", 1, rome), ("grace", "grace", 1, grace), ("one", "memit", 1, one_by_one), ("all", "memit", 100, at_once)
    ):  # fmt: skip
        run(store, name, always, facts=range(100), editor=editor, batch_size=size, model="m")
        rows = answered(200, 1) + answered(right, 100)
        store.commit(name, "questions", {"benchmark_answers": rows}, CommitInfo(kind="benchmark"))


def test_planted_data_flip_what_the_dual_facets_slides_say(store: Store, tmp_path: Path) -> None:
    plant_abilities(store, rome=120, grace=200, one_by_one=120, at_once=190)
    assert set(verdicts(store, "dual-facets").values()) == {"agrees"}
    other = Store(tmp_path / "other", create=True)
    plant_abilities(other, rome=200, grace=100, one_by_one=190, at_once=120)
    found = verdicts(other, "dual-facets")
    assert found["grace-keeps-abilities"] == found["larger-batches-harm-less"] == "differs"
    assert found["damage-grows"] == "undecided", "nothing was lost, which no interval can rule out"


@pytest.mark.parametrize("name", paper_names())
def test_every_statement_of_a_paper_runs_and_nothing_is_claimed_of_nothing(store: Store, name: str) -> None:
    run(store, "a", always, facts=range(8))
    paper = load_paper(name)
    assert set(verdicts(store, name).values()) <= {"not run"} | ({"agrees"} if name == "forgetting" else set())
    for item in paper.items.values():
        if item.table:
            query(store, item.table)


@pytest.mark.parametrize("name", paper_names())
def test_every_item_is_drawn_judged_or_excused(store: Store, name: str) -> None:
    paper = load_paper(name)
    judged = {claim.item for claim in paper.claims.values()}
    assert all(item.pictures or item.table or item.excused or key in judged for key, item in paper.items.items())
    assert {"full", "small"} <= paper.scales.keys()


def test_a_paper_of_ones_own_that_is_wrong_says_where(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    good: dict[str, Any] = {
        "title": "t",
        "source": "s",
        "scales": {"small": []},
        "items": {"fig-1": {"title": "f", "excused": "x"}},
    }
    claim = {"item": "fig-1", "says": "s", "sql": "SELECT 1"}
    for claims, message in (
        ({"a": claim}, "expected what is said of the value"),
        ({"a": claim | {"item": "fig-2", "above": 0}}, "claims \\['a'\\] are of items that are not listed"),
        ({"a": {"item": "fig-1", "says": "s", "above": 0}}, "expected one of compare and sql"),
    ):
        file.write_text(yaml.safe_dump(good | {"claims": claims}))
        with pytest.raises(SpecError, match=message):
            load_paper(str(file))
    with pytest.raises(SpecError, match="no paper 'nope'; expected one of"):
        load_paper("nope")
    with pytest.raises(SpecError, match="--scale 'tiny': expected one of"):
        experiment_files(load_paper("forgetting"), "tiny", tmp_path)


def test_the_page_shows_claims_pictures_and_excuses(store: Store) -> None:
    plant_forgetting(store, "rome", "memit")
    claim = Claim(name="c", item="fig-1", says="it is so", sql="", expected=Expected(above=0))
    items = [
        Shown("fig-1", "a figure", [("editing", "true", False)], None, None),
        Shown("table-1", "a table", [], "SELECT editor, mean FROM setting_summary WHERE metric = 'score'", None),
        Shown("fig-2", "another", [], None, "needs a hub"),
    ]
    judged = [Judged(claim=claim, verdict="agrees", rows=(row(0.5, 0.1) | {"verdict": "agrees"},))]
    page = Path(write_page(store, "t", "Title", items, judged, unseen=())).read_text()
    assert "<svg" in page and "it is so" in page and "x: 0.500 (0.400 to 0.600, n 100)" in page
    assert "not here, needs a hub" in page and "<td>memit</td>" in page
