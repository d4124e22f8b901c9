"""The questions of docs/questions.md, asked of a store whose answers are known."""

import re
from pathlib import Path

import pytest

from storage.sql import query
from storage.store import Store
from tests.docs.pages import DOCS
from tests.docs.planted import plant

PAGE = (DOCS / "questions.md").read_text()
QUESTIONS = dict(re.findall(r"^## (.*?)\n.*?```sql\n(.*?)```", PAGE, flags=re.M | re.S))
ANSWERS: dict[str, list[tuple[object, ...]]] = {
    # ES, PS, NS of layer 2 are 0.9, 0.9, 1; of layer 0 1/2, 1/2, 1; in layer 3 no paraphrase holds.
    "Which layer is best edited?": [([2], 0.93), ([0], 0.6), ([3], 0.0)],
    # Of the first twenty facts, which as many followed in every setting: 15, 2 and none.
    "Which batch size forgets least?": [(20, 0.0), (4, 0.1), (1, 0.75)],
    "Is the difference more than noise?": [(1, 4, 0.65, True), (1, 20, 0.75, True), (4, 20, 0.1, False)],
    "What was forgotten first?": [("f0", 20), ("f1", 20), ("f2", 20)],
    # Fact i has the age 19 - i at the first checkpoint, where i < 10 is lost, and 39 - i at the second, where i < 15 is.
    "At what age are edits forgotten?": [
        (1, 3, 1.0), (4, 7, 1.0), (8, 11, 0.75), (12, 15, 0.5), (16, 19, 0.5), (20, 23, 1.0), (24, 27, 0.25), (28, 31, 0.0),
        (32, 35, 0.0), (36, 39, 0.0),
    ],
    "Which relations suffer?": [("capital", 0.25), ("job", 1.0)],
    "Which facts never took?": [("f0",), ("f10",), ("f20",), ("f30",)],
    "Do edits carry over to other words?": [([0], 0.5, 0.5), ([2], 0.9, 0.9), ([3], 0.75, 0.0)],
    "Which edits disturb their neighbors?": [("f4", 2), ("f5", 2), ("f6", 2)],
    "When did a model break?": [("ft", 2, 40), ("memit", 1, None), ("memit", 4, None), ("memit", 20, None)],
    "Why did it break?": [("ft", 11, 50.0)],
    "How far did the weights move?": [("ft", 2, 52.0), ("memit", 1, 4.0)],
    "What did a paper's number mean?": [(1, 1.0, 0.625), (4, 1.0, 0.95), (20, 1.0, 1.0)],
    "Which scoring protocol flips the order?": [("contained",), ("exact",)],
    "Do benchmarks fall with edits?": [("toy", 0, 0.9), ("toy", 20, 0.75), ("toy", 40, 0.5)],
    "Is a fall of a benchmark more than noise?": [(20, 0.15, True), (40, 0.4, True)],
    "How much do samples differ?": [(2, 0.875, 0.177)],
    "What does the model say now?": [("before", " old."), ("own", " new."), ("final", " old.")],
    "How long does an edit take?": [("memit", 1, 0.2), ("memit", 4, 0.1), ("memit", 20, 0.1)],
    "With what was a number made?": [("rome", 1, "0.5", "2.13.0")],
    "What is not done yet, or was given up?": [("ft-b2-0000000000", "segment-000020", "the weights are NaN")],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("planted") / "store", create=True)
    plant(made)
    return made


def test_every_question_has_its_answer() -> None:
    assert list(QUESTIONS) == list(ANSWERS) and len(ANSWERS) >= 20


@pytest.mark.parametrize("title", ANSWERS)
def test_a_question_finds_what_was_planted(store: Store, title: str) -> None:
    assert [tuple(row.values()) for row in query(store, QUESTIONS[title]).to_pylist()] == ANSWERS[title]


def test_another_store_answers_otherwise(tmp_path: Path) -> None:
    """Else the questions would be asked of nothing."""
    empty = Store(tmp_path / "store", create=True)
    assert not any(query(empty, sql).num_rows for sql in QUESTIONS.values())
