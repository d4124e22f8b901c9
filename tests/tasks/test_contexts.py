"""Context prefixes: sampled or given, looked at, exported, and part of the identity by their content."""

import json
from pathlib import Path
from typing import Any

import pytest

from editing.model.bundled import bundled_folder
from editing.model.loading import load, load_format
from flows.experiment_file import load_experiment
from flows.spec_values import SpecError
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.units.contexts import export_contexts, look_at, read_contexts
from tests.flows.support import plan_of
from tests.tasks.support import plan, run_all

SMALL: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 4},
    "editors": [{"name": "memit", "steps": 2, "contexts": 3}],
    "layers": [0],
    "second_moment": {"n_texts": 40},
    "score": {"every_edits": 0},
}


def given(file: Path, **editor: Any) -> dict[str, Any]:
    return SMALL | {"editors": [{"name": "memit", "steps": 2, "contexts_file": str(file), **editor}]}


def ids(tmp_path: Path, **changes: Any) -> list[str]:
    tmp_path.mkdir(exist_ok=True)
    return [run.run_id for run in plan(tmp_path, **changes).runs if run.editor != "none"]


def test_exported_prefixes_are_given_back_and_read_alike(tmp_path: Path) -> None:
    (tmp_path / "sampled").mkdir()
    (tmp_path / "given").mkdir()
    store, _ = run_all(tmp_path / "sampled", **SMALL)
    rows = export_contexts(store, tmp_path / "out")
    (file,) = (path for path in (tmp_path / "out").glob("*.json") if "recipe" not in path.name)
    texts = json.loads(file.read_text())
    assert len(texts) == 3 == len(rows) and all(text.endswith(". ") for text in texts)
    assert [row["text"] for row in rows] == [repr(text) for text in texts]
    assert all(row["perplexity"] > 1 and 0 <= row["repetition"] <= 1 for row in rows)
    shown = query(store, "SELECT text, perplexity FROM context_prefixes").to_pylist()
    assert sorted(row["text"] for row in shown) == sorted(texts)
    again, _ = run_all(tmp_path / "given", **given(file))
    wanted = "SELECT contexts FROM runs WHERE editor = 'memit'"
    assert query(again, wanted).to_pylist() == query(store, wanted).to_pylist() == [{"contexts": ["", *texts]}]
    same = "SELECT fact_id, kind, nll_new, nll_true FROM fact_scores WHERE purpose = 'own' ORDER BY ALL"
    assert query(again, same).equals(query(store, same)), "the same prefixes, the same edits"


def test_the_content_of_a_file_is_the_identity(tmp_path: Path) -> None:
    one, copy, other = tmp_path / "one.json", tmp_path / "copy.json", tmp_path / "other.json"
    one.write_text(json.dumps(["The river. ", "It rains. "]))
    copy.write_text(json.dumps(["The river. ", "It rains. "], indent=2))
    other.write_text(json.dumps(["The river. ", "It snows. "]))
    found = [ids(tmp_path / name, **settings) for name, settings in
             {"a": given(one), "b": given(copy), "c": given(other), "d": SMALL}.items()]  # fmt: skip
    assert found[0] == found[1] and found[0] != found[2] and found[3] not in found[:3]
    (run,) = (run for run in plan(tmp_path, **given(one)).runs if run.editor != "none")
    assert run.trajectory.contexts is not None and run.trajectory.contexts["texts"] == ["The river. ", "It rains. "]
    assert run.hparams["contexts"] == 2 and "seed" not in run.trajectory.contexts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"Expecting value.*expected a JSON list"),
        ('"The river. "', "found str; expected a JSON list"),
        ("[]", "found list; expected a JSON list of one text"),
        ('["A river. ", 3]', "text 1 is 3; expected a text"),
        ('["", "A river. "]', "text 0 is ''; expected a text, without the bare prompt"),
        ('["A river."]', r"text 0, 'A river\.', ends in '\.', which would be joined"),
        ('["Un café"]', r"ends in 'é', which would be joined"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_the_plan(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "contexts.json"
    file.write_text(content)
    with pytest.raises(SpecError, match=rf"(?s)editors\.0: {file}.*{message}"):
        plan(tmp_path, **given(file))


def test_what_does_not_go_together_is_refused_in_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "contexts.json"
    file.write_text(json.dumps(["The river. "]))
    with pytest.raises(SpecError, match="found context_starts beside contexts_file"):
        plan(tmp_path, **given(file, context_starts=["The"]))
    with pytest.raises(
        SpecError, match=r"contexts_file gives its context prefixes\): runs with the seeds \[0, 1\] would"
    ):
        plan(tmp_path, **given(file), seeds=[0, 1])
    with pytest.raises(SpecError, match="no_op reads no context prefixes"):
        plan(tmp_path, **(SMALL | {"editors": [{"name": "no_op", "contexts_file": str(file)}]}))
    with pytest.raises(SpecError, match=r"editors\.0: .*missing\.json.*No such file"):
        plan(tmp_path, **given(tmp_path / "missing.json"))
    file.write_text(json.dumps(["The river is long and wide, " * 40]))
    with pytest.raises(
        SpecError, match=r"(?s)do not fit into the context of .*behind a context prefix.*shorter prefix"
    ):
        plan(tmp_path, **given(file))
    locate = {"search": {"editor": "rome", "edits": 2, "contexts_file": str(file)}}
    with pytest.raises(SpecError, match="do not fit into the context of "):
        plan(tmp_path, **SMALL, locate=locate)


def test_a_relative_file_is_relative_to_the_experiment_and_searches_take_one_too(tmp_path: Path) -> None:
    (tmp_path / "contexts.json").write_text(json.dumps(["The river. "]))
    locate = {"search": {"editor": "rome", "edits": 2, "contexts_file": "contexts.json"}}
    planned = plan(tmp_path, **(given(Path("contexts.json")) | {"locate": locate}))
    recipes = [run.trajectory.contexts for run in (*planned.runs[1:], planned.searches[0].template)]
    assert [recipe and recipe["texts"] for recipe in recipes] == [["The river. "], ["The river. "]]


def test_the_plan_says_where_nothing_stands_in_front_of_a_sampled_prefix(tmp_path: Path) -> None:
    def notes(**changes: Any) -> str:
        return " ".join(plan(tmp_path, **(SMALL | changes)).notes)

    begins = load_format(str(bundled_folder("factworld-tiny"))).begins
    assert ("context prefixes: nothing stands in front" in notes()) is not begins
    file = tmp_path / "contexts.json"
    file.write_text(json.dumps(["The river. "]))
    assert "context prefixes: nothing" not in notes(**given(file))


def test_prefixes_that_repeat_themselves_are_said(caplog: pytest.LogCaptureFixture) -> None:
    lm = load("factworld-tiny")
    rows = look_at(lm, ["The cat sat on the mat. ", "the the the the the the the the. ", "One. ", "One. "])
    assert [row["repetition"] for row in rows][:2] == [0.0, pytest.approx(4 / 6)]
    said = caplog.text
    assert "repeats itself" in said and "'One. ' was drawn more than once" in said and "cat sat" not in said


def test_a_prefix_of_a_token_without_an_embedding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "contexts.json"
    file.write_text(json.dumps(["The river. "]))

    def refuse(text: str) -> tuple[int, ...]:
        raise ValueError(f"the tokenizer gives id 999 in {text!r}")

    with pytest.raises(InputError, match=r"contexts\.json: text 0, 'The river\. ': the tokenizer gives id 999"):
        read_contexts(file, refuse)


def test_a_store_without_prefixes_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no context prefixes"):
        export_contexts(Store(tmp_path / "store", create=True), tmp_path / "out")


def test_what_is_no_path_is_refused_by_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "name: e\nmodel: factworld-tiny\nfacts: factworld\neditors: [{name: rome, contexts_file: 3}]\nlayers: [0]\n"
    )
    with pytest.raises(SpecError, match=r"contexts_file"):
        plan_of(load_experiment(file))
