"""Grades of written answers by hand."""

import pytest

from editing.measure.downstream import Answer, ChoiceMeasure, Question, likeliest_choice, said_choice
from editing.model.lm import AnswerScore
from tasks.benchmarks.grading import code_block, label_in, squad_normal, token_f1
from tasks.data.math_text import boxed, math_answer, math_normal


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [
        (" No, it is", True, "no"),
        (" none of them", True, None),  # a word of its own
        (" none of them", False, "no"),  # the official substring
        (" yes and no", True, "yes"),  # the first label of the mapping, not of the text
        (" no and yes", True, "yes"),
        (" NO", True, "no"),
        ("", True, None),
        (" yesterday", True, None),
        (" yesterday", False, "yes"),
    ],
)
def test_labels(text: str, whole: bool, expected: str | None) -> None:
    assert label_in(text, {"yes": ("yes",), "no": ("no", "not")}, whole_words=whole) == expected


def test_squad() -> None:
    assert squad_normal("The  Cat, a dog!") == "cat dog"
    assert token_f1("the cat sat", "a cat") == pytest.approx(2 / 3)  # one word shared, of two and of one
    assert token_f1("dog", "cat") == 0 and token_f1("", "cat") == 0 and token_f1("the", "a") == 1
    assert token_f1("cat cat", "cat") == pytest.approx(2 / 3), "each word counts as often as it is there"


def test_final_answers_of_mathematics() -> None:
    assert boxed(r"so \boxed{\frac{1}{2}} and \boxed{{a}}") == "{a}"
    assert boxed(r"\boxed 7$") == "7" and boxed("none") is None and boxed(r"\boxed{open") is None
    assert math_answer(r"It is $x$, or $y=3$.") == r"x$, or $y=3", "from the first sign to the last"
    assert math_answer(r"\$5") == r"\$5" and math_answer("12") == "12"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\dfrac{1}{2}", r"\frac12"),
        ("1/2", r"\frac{1}{2}"),
        (".5", r"\frac{1}{2}"),
        ("x = 5", "5"),
        (r"5\text{ cm}", "5"),
        (r"\left(1, 2\right)", "(1,2)"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"90^\circ", "90"),
        (r"50\%", "50"),
        (r"\$5", "5"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_equal_answers(one: str, other: str) -> None:
    assert math_normal(one) == math_normal(other)


def test_unequal_answers() -> None:
    assert len({math_normal(text) for text in ("1/2", "1/3", "12", "x+1", "(1,2)", r"\frac{2}{1}")}) == 6


@pytest.mark.parametrize(("by", "expected"), [("sum", "no"), ("token", "certainly"), ("byte", "größer")])
def test_the_likeliest_choice(by: ChoiceMeasure, expected: str) -> None:
    """NLLs 3, 4.5, 3.9; per token 3, 1.5, 1.95; per byte 1.5, 0.5, 0.49 (ö and ß are two bytes each)."""
    question = Question("q", "?", ("no", "certainly", "größer"), ("no",))
    scores = (AnswerScore(3.0, 1, (1,), 0), AnswerScore(4.5, 3, (1, 2, 3), 2), AnswerScore(3.9, 2, (1, 2), 2))
    answer = Answer(1, True, scores)
    assert likeliest_choice(question, answer, by) == expected
    assert said_choice(question, answer) == "größer", "the only one whose every token is the argmax"


def test_no_choice_is_likeliest_where_one_is_nan_or_the_first_of_equals() -> None:
    question = Question("q", "?", ("a", "b"), ("a",))
    equal, lost = AnswerScore(2.0, 1, (1,), 0), AnswerScore(float("nan"), 1, (0,), 0)
    assert likeliest_choice(question, Answer(1, True, (equal, equal))) == "a"
    assert likeliest_choice(question, Answer(1, True, (equal, lost))) is None
    assert likeliest_choice(question, Answer(1, False)) is None and said_choice(question, Answer(1, False)) is None


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("Sure:\n```python\ndef f():\n    return 1\n```\nDone.", "def f():\n    return 1\n"),
        ("```\nx = 1\n```\n```python\ny = 2\n```", "y = 2\n"),
        ("```\nx = 1\n```\n```\ny = 2\n```", "x = 1\n"),
        ("~~~py\nx = '```'\n~~~", "x = '```'\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("```python\ncut off by the number of tok", "cut off by the number of tok"),
        ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("def f():\n    return `1`", "def f():\n    return `1`"),
        ("    indented = True", "    indented = True"),
        ("Install:\n```bash\npip install x\n```\nThen:\n```python\nx = 1\n```", "x = 1\n"),
        (
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
        ),
    ],
)
def test_the_program_of_a_fenced_answer(text: str, program: str) -> None:
    assert code_block(text) == program
