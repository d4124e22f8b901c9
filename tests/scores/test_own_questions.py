"""Questions of one's own from a file alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.benchmarks.own_file import definition_of_file
from tasks.benchmarks.questions import Wanted, make_questions
from tasks.errors import InputError

CHOICES = {"question": "Which is larger?", "choices": ["a mouse", "a whale"], "answer": "a whale"}


def file(folder: Path, *records: Any) -> str:
    path = folder / "my questions.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


@pytest.mark.parametrize("answer", ["a whale", "B", "b", 1, "1"])
def test_an_answer_is_a_text_a_letter_or_a_number(tmp_path: Path, answer: Any) -> None:
    made = make_questions(Wanted(name="", file=file(tmp_path, CHOICES | {"answer": answer})))
    (asked,) = made.asked
    assert asked.prompt == "Question: Which is larger?\nAnswer:" and asked.choices == ("a mouse", "a whale")
    assert asked.gold == ("a whale",) and made.definition.name == "my-questions" and made.n_shots == 0


def test_a_file_may_be_in_one_way_though_single_answers_could_be_more(tmp_path: Path) -> None:
    vitamins = {"question": "Which?", "choices": ["C", "B", "A"], "answer": "A"}
    made = make_questions(Wanted(name="", file=file(tmp_path, CHOICES | {"answer": "B"}, vitamins)))
    assert [question.gold for question in made.asked] == [("a whale",), ("C",)], "letters, both"
    alone = make_questions(Wanted(name="", file=file(tmp_path, vitamins)))
    assert alone.asked[0].gold == ("A",), "a text, where nothing speaks against it"


def test_choices_may_stand_in_columns(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,A,B,C,D,answer\nCapital of France?,Rome,Oslo,Paris,Bonn,C\n")
    (asked,) = make_questions(Wanted(name="", file=str(tmp_path / "q.csv"))).asked
    assert asked.choices == ("Rome", "Oslo", "Paris", "Bonn") and asked.gold == ("Paris",)


def test_all_are_asked_in_their_order(tmp_path: Path) -> None:
    records = [CHOICES | {"question": f"Which is larger, {i}?"} for i in range(30)]
    asked = make_questions(Wanted(name="sizes", file=file(tmp_path, *records))).asked
    assert [question.prompt.split()[4] for question in asked] == [f"{i}?" for i in range(30)]


def test_a_table_holds_lists_as_json(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text('question,choices,answer\nWhich?,"[""a"", ""b""]",b\n')
    (asked,) = make_questions(Wanted(name="", file=str(tmp_path / "q.csv"))).asked
    assert asked.choices == ("a", "b") and asked.gold == ("b",)


def test_written_answers_and_labels(tmp_path: Path) -> None:
    written = make_questions(Wanted(name="", file=file(tmp_path, {"question": "Who?", "answer": "Ada"})))
    assert written.definition.answer.kind == "text" and written.asked[0].gold == ("Ada",)
    labelled = make_questions(
        Wanted(name="", file=file(tmp_path, {"text": "so good", "label": "yes"}, {"text": "so bad", "label": "no"}))
    )
    assert [question.choices for question in labelled.asked] == [("no", "yes")] * 2
    assert labelled.definition.metrics == ("accuracy", "f1")


def test_a_definition_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('prompt: "Q: {{ record.question }}\\nA:"\n')
    made = make_questions(Wanted(name=str(tmp_path / "mine.yaml"), file=file(tmp_path, CHOICES)))
    assert made.asked[0].prompt == "Q: Which is larger?\nA:" and made.definition.name == "mine"
    assert made.definition.answer.by == "byte"


def test_numbers_that_are_choices_are_no_places(tmp_path: Path) -> None:
    numbers = CHOICES | {"choices": [10, 20, 30], "answer": 20}
    assert make_questions(Wanted(name="", file=file(tmp_path, numbers))).asked[0].gold == ("20",)
    with pytest.raises(InputError, match=r"the number 2, which is one of the choices .* and another's place"):
        definition_of_file(Path(file(tmp_path, CHOICES | {"choices": [1, 2, 3], "answer": 2})))
    assert make_questions(Wanted(name="", file=file(tmp_path, CHOICES | {"choices": [1, 2, 3], "answer": "2"}))).asked[
        0
    ].gold == ("2",)


def test_labels_are_trimmed_and_may_be_anything(tmp_path: Path) -> None:
    made = make_questions(
        Wanted(name="", file=file(tmp_path, {"text": "a", "label": "😀 "}, {"text": "b", "label": "no"}))
    )
    assert [question.gold for question in made.asked] == [("😀",), ("no",)]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"questoin": "a", "choices": ["a", "b"], "answer": "a"}], r"did you mean question for questoin\?"),
        ([CHOICES, CHOICES | {"answer": "a dog"}], "record 1: answer: found 'a dog'; expected one of"),
        ([CHOICES, CHOICES | {"answer": "B"}], "record 1 \\('B'\\) is a letter; expected all in one way"),
        ([{"question": "a", "answer": "A", "options": ["x", "y"]}], r"did you mean choices for options\?"),
        ([{"question": "a", "answer": "A", "choice": ["x", "y"]}], r"did you mean choices for choice\?"),
        ([CHOICES | {"answer": "ß"}], "answer: found 'ß'"),
        ([{"question": "a", "answer": "b"}, CHOICES], "record 0: choices: found None"),
        ([CHOICES | {"choices": ["a"]}], "expected two or more, each once"),
        ([CHOICES | {"choices": "a|b"}], "which is no list in JSON"),
        ([CHOICES | {"question": ""}], "record 0: question: found ''"),
        ([{"text": "a", "label": "x"}], "every label is 'x'; expected two classes"),
        (["a text"], "record 0: found 'a text'"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, records: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        definition_of_file(Path(file(tmp_path, *records)))
