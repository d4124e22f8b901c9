"""Claims of papers: what makes each agree, differ, or stay undecided; planted stores flip them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.papers import load_paper, paper_names
from flows.reproduction import experiment_files
from flows.spec_values import SpecError
from storage.sql import query
from storage.store import Store
from tasks.reports.paper_page import Shown, write_page
from tasks.reports.verdicts import Claim, Expected, Judged, judge, problems_of, worst
from tests.storage.test_settings import always, run


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
    assert expected.judge(row(0.5, 0.02), with_numbers=False) == "not judged"
    both = Expected(above=0, published=0.9, tolerance=0.05)
    assert (
        both.judge(row(0.5, 0.02), with_numbers=False) == "agrees"
        and both.judge(row(0.5, 0.02), with_numbers=True) == "differs"
    )


def test_a_claim_is_as_good_as_the_worst_of_its_rows() -> None:
    assert worst(["agrees", "undecided"]) == "undecided" and worst(["agrees", "differs", "undecided"]) == "differs"
    assert worst([]) == "not run" and worst(["not judged"]) == "not judged"
    assert worst(["not judged", "agrees"]) == "agrees", "what too few facts say hides nothing"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def verdicts(store: Store, paper: str) -> dict[str, str]:
    return {
        each.claim.name: each.verdict for each in judge(store, load_paper(paper).claims_of(None), with_numbers=True)
    }


@pytest.mark.parametrize("name", paper_names())
def test_every_statement_of_a_paper_runs_and_nothing_is_claimed_of_nothing(store: Store, name: str) -> None:
    run(store, "a", always, facts=range(8))
    paper = load_paper(name)
    assert set(verdicts(store, name).values()) <= {"not run", "not judged"} | (
        {"agrees"} if name == "forgetting" else set()
    )
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
        ({"a": {"item": "fig-1", "says": "s", "above": 0}}, "expected one of compare, sql and excused"),
    ):
        file.write_text(yaml.safe_dump(good | {"claims": claims}))
        with pytest.raises(SpecError, match=message):
            load_paper(str(file))
    with pytest.raises(SpecError, match="no paper 'nope'; expected one of"):
        load_paper("nope")
    with pytest.raises(SpecError, match="--scale 'tiny': expected one of \\['full', 'small', 'smollm2'\\]"):
        experiment_files(load_paper("forgetting"), "tiny", tmp_path)
    file.write_text(yaml.safe_dump(good | {"claims": {"a": claim | {"above": 0}}}))
    with pytest.raises(SpecError, match="--scale 'small': expected one of \\[\\]"):
        experiment_files(load_paper(str(file)), "small", tmp_path)
    nameless = {"small": [{"name": "a"}, {"model": "factworld-tiny"}]}
    file.write_text(yaml.safe_dump(good | {"scales": nameless, "claims": {"a": claim | {"above": 0}}}))
    with pytest.raises(SpecError, match="experiments \\[2\\] have no name"):
        experiment_files(load_paper(str(file)), "small", tmp_path)


def test_data_and_models_of_ones_own_are_read_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = experiment_files(load_paper("malmen"), "full", tmp_path / "deep" / "down")
    bert = yaml.safe_load(next(file for file in files if file.stem == "malmen-bert").read_text())
    assert bert["model"]["name"] == str(tmp_path / "bert-base-fever")
    assert bert["facts"]["path"] == str(tmp_path / "fever_train.json")
    gpt = yaml.safe_load(next(file for file in files if file.stem == "malmen-gpt2").read_text())
    assert gpt["model"]["name"] == "openai-community/gpt2"
    editors = ["memit", {"name": "memit", "targets": "kv", "by_model": {"mine": {"contexts_file": "c.json"}}}]
    texts = {"second_moment": {"files": {3: "m.npz"}}, "score": {"perplexity": {"path": "t.txt"}}}
    short = {
        "title": "t",
        "source": "s",
        "items": {},
        "claims": {},
        "scales": {"small": [{"name": "a", "model": "./mine", "facts": "own.csv", "editors": editors} | texts]},
    }
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    (file,) = experiment_files(load_paper("short.yaml"), "small", tmp_path / "deep")
    assert yaml.safe_load(file.read_text()) == {
        "name": "a",
        "model": str(tmp_path / "mine"),
        "facts": str(tmp_path / "own.csv"),
        "editors": [
            "memit",
            {
                "name": "memit",
                "targets": str(tmp_path / "kv"),
                "by_model": {"mine": {"contexts_file": str(tmp_path / "c.json")}},
            },
        ],
        "second_moment": {"files": {3: str(tmp_path / "m.npz")}},
        "score": {"perplexity": {"path": str(tmp_path / "t.txt")}},
    }


def test_statements_of_claims_are_tried_before_anything_runs() -> None:
    good = "SELECT 'x' AS what, 1 AS value, 0 AS low, 2 AS high, 9 AS n"
    claims = [
        Claim(name=name, item="i", says="s", sql=sql, expected=Expected(above=0))
        for name, sql in (("fine", good), ("bare", "SELECT 1 AS value"), ("broken", "SELECT nope FROM runs"))
    ]
    bare, broken = problems_of(claims)
    assert bare.startswith("claim bare: its statement gives no column ['high', 'low', 'n', 'what']")
    assert broken.startswith("claim broken: ") and "nope" in broken


def test_the_page_shows_claims_pictures_and_excuses(store: Store) -> None:
    for editor in ("rome", "memit"):
        run(store, editor, always, facts=range(60), editor=editor)
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


def test_benchmarks_find_their_published_files(tmp_path: Path) -> None:
    for folder in ("rte", "glue/sst2"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    files = experiment_files(load_paper("forgetting"), "smollm2", tmp_path / "files", tmp_path / "data")
    benchmarks = yaml.safe_load(files[0].read_text())["score"]["benchmarks"]
    paths = {each["name"]: each.get("path") for each in benchmarks}
    data = tmp_path / "data"
    assert paths == {
        "rte": str(data / "rte"),
        "sst2": str(data / "glue" / "sst2"),
        "cola": None,
        "commonsense_qa": None,
    }
