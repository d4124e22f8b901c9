"""The commands that say what a store shows, on hand-made rows."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.spec_values import SpecError
from storage.commits import CommitInfo
from storage.errors import StorageError
from storage.store import Store
from tasks.errors import InputError
from tests.storage.test_settings import always, run
from tests.storage.test_views import BASELINE, score


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    for size, wrong in ((5, 0), (10, 2), (50, 30)):
        for layer in (0, 1):
            run(made, f"b{size}-{layer}", always, facts=range(100), batch_size=size, layers=[layer],
                final=lambda fact, kind, wrong=wrong: fact >= wrong)  # fmt: skip
    return made


def said(store: Store, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--store", str(store.files.folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_compare_answers_by_itself(store: Store) -> None:
    text = said(store, "compare")
    assert "Which batch size has the highest S?" in text and "Which choice of layers has the highest S?" in text
    assert (
        "memit b5 layer 0 has the highest S on the final model (1.000), and cannot be told from memit b10 layer 0"
        in text
    )
    assert "Which editor" not in text, "there is one"
    ranked = [line.split() for line in text.split("share a letter")[1].splitlines()[2:] if line.strip()]
    assert [row[0] for row in ranked] == list("123456") and ranked[0][2] == "b5" and ranked[-1][2] == "b50"
    assert ranked[0][-1] == "a" and ranked[-1][-1] == "b", "the last ones are told from the first"


def test_compare_takes_two_things_in_either_order(store: Store) -> None:
    one, other = (
        said(store, "compare", *pair, "--by", "batch_size", "--metric", "efficacy")
        for pair in (("5", "50"), ("50", "5"))
    )
    assert "memit b5 layer 0 makes 30.0 points more of its edits work than memit b50 layer 0" in one
    assert "More than noise: 2 of 2 comparisons." in one and "More than noise: 2 of 2 comparisons." in other
    assert "0.300" in one and "-0.300" in other
    by_layer = said(store, "compare", "0", "1", "--by", "layers", "--metric", "efficacy")
    assert by_layer == said(store, "compare", "[0]", "[1]", "--by", "layers", "--metric", "efficacy")
    assert "of 3 comparisons" in by_layer, "one for each batch size"
    assert "More than noise: 1 of 1" in said(store, "compare", "b5-0", "b50-1", "--metric", "efficacy"), (
        "runs by their ids"
    )


def test_compare_says_where_nothing_can_be_compared(store: Store) -> None:
    none = said(store, "compare", "--by", "editor")
    assert "no two settings differ as asked; those that are compared differ in batch_size, layers: leave --by" in none
    assert "nothing to compare" in said(store, "compare", "--where", "false")
    for arguments, message in (
        (["compare", "5"], "two things"),
        (["compare", "5", "memitt"], "'memitt' names no setting that is compared with another; expected one of"),
        (["compare", "5", "1"], "'1' names no setting"),
        (["compare", "--by", "colour"], "--by 'colour': expected one of"),
    ):
        with pytest.raises(SpecError, match=message):
            said(store, *arguments)


def test_figures_are_listed_and_drawn(store: Store, tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["list", "figures"]).output
    assert "editing" in listed and "batch-size" in listed
    assert "figure.svg" in said(
        store, "figure", "batch-size", "--out", str(tmp_path / "figure.svg"), "--where", "layers = [0]"
    )
    with pytest.raises(InputError, match="no figure 'nope'"):
        said(store, "figure", "nope", "--out", str(tmp_path / "figure.svg"))


def test_show_takes_an_id_then_a_place_then_words(store: Store) -> None:
    """f7 is the eighth edit; an id is never read as words, and a place never as part of a prompt."""
    assert said(store, "show", "b5-0", "f7").startswith("f7  (round 7)")
    assert said(store, "show", "b5-0", "8").startswith("f7  (round 7)")
    with pytest.raises(InputError, match="'101' names"):
        said(store, "show", "b5-0", "101")


def test_show_says_what_was_said_before_and_after(store: Store) -> None:
    texts = {"own": " Paris.", "retention": None}
    rows = [
        score(3, 0, at, purpose=purpose, good=True) | {"text": texts.get(purpose)}
        for purpose, at in (("own", 0), ("retention", 0))
    ]
    store.commit("b5-0", "more", {"fact_scores": rows}, CommitInfo(kind="own"))
    before = score(0, -1, -1, purpose="baseline", good=False) | {"text": " Rome.", "probe_id": "f0/rewrite/0"}
    store.commit(BASELINE, "baseline", {"fact_scores": [before]}, CommitInfo(kind="baseline"))
    text = said(store, "show", "b5-0", "f0")
    assert (
        "fails  before" in text
        and "' Rome.'" in text
        and "holds  right after" in text
        and "holds  final, 100 edits" in text
    )
    assert text.count("paraphrase") == 2, "all prompts of one fact"
    assert "... and 91 more edits" in said(store, "show", "b5-0")
    with pytest.raises(InputError, match="no scored edit that 'x' names"):
        said(store, "show", "b5-0", "x")
    with pytest.raises(StorageError, match="'b5' begins 4 runs"):
        said(store, "show", "b5")
    with pytest.raises(StorageError, match="no run 'c5'"):
        said(store, "show", "c5")
