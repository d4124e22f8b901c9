"""Every benchmark from its published files to its metric: read, asked as expected byte for byte, graded, stored, queried."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from editing import load
from editing.measure.downstream import Question
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.benchmarks.answering import answer_row, ask, grade
from tasks.benchmarks.definition import definition_names, read_definition
from tasks.benchmarks.questions import Questions, Wanted, make_questions, publish_questions, read_questions
from tasks.benchmarks.sandbox import run_program
from tasks.errors import InputError
from tests.scores.published import GROUPS, WRITERS
from tests.scores.stub import Says, Stub
from tests.storage.test_views import RUN, run_row

PROMPTS = Path(__file__).parent / "prompts"
GENERATED = [name for name in definition_names() if name not in WRITERS]
every = pytest.mark.parametrize("name", definition_names())


def questions_of(name: str, root: Path, *, n: int = 24, **changes: Any) -> Questions:
    if name in WRITERS:
        WRITERS[name](root / name, 6 if name == "mbpp" else n)  # every program is run
        changes = {"path": str(root / name), "groups": GROUPS.get(name)} | changes
    return make_questions(Wanted(name=name, **changes))


def stored(root: Path, questions: Questions, says: Says, *, limit: int = 24, context: int | None = None) -> Store:
    """Ask some questions of a model that says what it is told, and commit the graded answers as a run would."""
    store = Store(root / "store", create=True)
    publish_questions(store, questions)
    asked, rule, recipe = read_questions(store, questions.run_id, range(limit))
    lm: Any = Stub(asked, says, context)
    common = {
        "benchmark": questions.definition.name,
        "questions_run_id": questions.run_id,
        "scored_at": -1,
        "edits_so_far": 0,
        "n_shots": recipe["n_shots"],
        "shots_from": recipe["shots_from"],
    }
    rows = [
        common | answer_row(question, answer, grade(question, answer, rule, run_program), rule)
        for question, answer in zip(asked, ask(lm, asked, rule), strict=True)
    ]
    store.commit(RUN, "b", {"runs": [run_row()], "benchmark_answers": rows}, CommitInfo(kind="benchmark"))
    return store


def curve(store: Store) -> dict[str, Any]:
    (row,) = query(store.location, "SELECT * FROM benchmark_curve").to_pylist()
    return row


@every
def test_a_model_that_knows_all_answers_scores_one(name: str, tmp_path: Path) -> None:
    questions = questions_of(name, tmp_path)
    row = curve(stored(tmp_path, questions, lambda question: question.gold[0]))
    for metric in questions.definition.metrics:
        assert row["mean_value" if metric == "token_f1" else metric] == pytest.approx(1.0), metric
    assert row["accuracy"] == 1 and row["invalid"] == row["too_long"] == row["accuracy_stderr"] == 0
    assert (row["n_shots"], row["shots_from"]) == (questions.n_shots, questions.shots_from)


@every
def test_a_model_that_always_says_the_same_scores_the_prior(name: str, tmp_path: Path) -> None:
    questions = questions_of(name, tmp_path)
    rule = questions.definition.answer
    first = next(iter(rule.labels)) if rule.labels else "??"
    row = curve(stored(tmp_path, questions, lambda question: question.choices[0] if question.choices else first))
    asked = questions.asked[:24]
    if rule.kind == "text" and not rule.labels:
        assert row["accuracy"] == 0 and row["mean_value"] == 0
        return
    prior = sum(question.gold[0] == (question.choices or (first,))[0] for question in asked) / len(asked)
    assert row["accuracy"] == pytest.approx(prior)
    if row["mcc"] is not None:
        assert row["mcc"] == 0
        golds = Counter(question.gold[0] for question in asked)
        hits = golds[(asked[0].choices or (first,))[0]]
        labels = len(rule.labels or asked[0].choices)
        assert row["f1"] == pytest.approx(2 * hits / (hits + len(asked)) / labels)


def test_class_priors_by_hand(tmp_path: Path) -> None:
    """Generated files: every third review is bad, answers go round the letters."""
    sst2 = make_plain("sst2", tmp_path, shots=0)
    assert Counter(q.gold[0] for q in sst2) == {"negative": 8, "positive": 8}, "balanced"
    csqa = make_plain("commonsense_qa", tmp_path)
    assert Counter(q.gold[0] for q in csqa) == {"A": 5, "B": 5, "C": 5, "D": 5, "E": 4}


def make_plain(name: str, root: Path, **changes: Any) -> tuple[Question, ...]:
    return questions_of(name, root, **changes).asked


@every
def test_prompts_are_those_that_are_expected(name: str, tmp_path: Path) -> None:
    first = questions_of(name, tmp_path).asked[0]
    expected = (PROMPTS / f"{name}.txt").read_bytes()
    shown = f"{first.prompt}\n=== choices: {list(first.choices)}\n=== gold: {list(first.gold)}\n"
    assert shown.encode() == expected


@every
def test_definitions_say_where_they_come_from(name: str) -> None:
    definition = read_definition(name)
    assert definition.title and definition.paper
    source = definition.source
    if name != "c3" and source.generator is None:
        assert source.hub and len(source.revision or "") == 40, "a commit"


@pytest.mark.parametrize("name", ["sst2", "mmlu", "bbh", "commonsense_qa", "rte", "ax_b", "mrpc", "cola", "c3", "mbpp"])
def test_published_files(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The real files, where there are any: every one is read, every answer is among the choices, and gold scores one."""
    folder = data_folder(request, name)
    groups = None
    if name in ("mmlu", "bbh"):
        wanted = read_definition(name).groups
        have = [group for group in wanted if any(folder.rglob(f"*{group}{'_test.csv' if name == 'mmlu' else '.json'}"))]
        groups = tuple(have)
    questions = make_questions(Wanted(name=name, path=str(folder), groups=groups, shots_from="dev"))
    assert len(questions.asked) > 200
    row = curve(stored(tmp_path, questions, lambda question: question.gold[0], limit=40))
    assert row["accuracy"] == 1 and row["n_examples"] == 40


def data_folder(request: pytest.FixtureRequest, name: str) -> Path:
    root = request.config.getoption("--data")
    if root is None:
        pytest.skip("no --data DIR with published files")
    inside = {"sst2": "glue/sst2", "mrpc": "glue/mrpc", "cola": "glue/cola", "rte": "glue/rte", "ax_b": "super_glue"}
    return Path(root) / inside.get(name, name)


# --- what is asked, in what order


def test_a_smaller_number_of_examples_is_the_beginning_of_a_larger(tmp_path: Path) -> None:
    asked = questions_of("mmlu", tmp_path).asked
    assert [question.group for question in asked[:4]] == ["anatomy", "virology"] * 2, "groups in turn"
    again = questions_of("mmlu", tmp_path)
    assert again.asked == asked and again.run_id == questions_of("mmlu", tmp_path).run_id


def test_shots_are_never_asked_and_what_changes_answers_changes_the_name(tmp_path: Path) -> None:
    none = questions_of("nli_paper", tmp_path, shots=0)
    two = questions_of("nli_paper", tmp_path, shots=2)
    ids = {question.example_id for question in two.asked}
    assert len(none.asked) == 24 and len(ids) == 22
    left_out = next(question for question in none.asked if question.example_id not in ids)
    assert all(left_out.prompt in question.prompt for question in two.asked), "it is a shot"
    train = questions_of("rte", tmp_path, shots=2)
    assert len({none.run_id, two.run_id, train.run_id}) == 3 and train.shots_from == "train"
    assert all("train men" in question.prompt for question in train.asked)


def test_a_papers_fixed_shots(tmp_path: Path) -> None:
    (tmp_path / "shots.txt").write_text("Two men sing. entails the Men sing. True or False? Answer: True\n")
    questions = questions_of("nli_paper", tmp_path, shots_file=str(tmp_path / "shots.txt"))
    assert questions.shots_from == "file" and len(questions.asked) == 24
    assert all(question.prompt.startswith("Two men sing. entails") for question in questions.asked)
    assert questions.asked[0].prompt.count("Answer:") == 2


def test_a_prompt_that_does_not_fit_is_not_cut(tmp_path: Path) -> None:
    questions = questions_of("sst2", tmp_path, shots=0)
    longest = max(len(question.prompt) for question in questions.asked)
    store = stored(
        tmp_path, questions, lambda question: question.gold[0], context=longest
    )  # a stub's answers have one token
    rows = query(store.location, "SELECT outcome, correct, predicted, label_nlls FROM benchmark_answers").to_pylist()
    lost = [row for row in rows if row["outcome"] == "too_long"]
    assert 0 < len(lost) < len(rows) and all(not row["correct"] and row["predicted"] is None for row in lost)
    assert curve(store)["too_long"] == pytest.approx(len(lost) / len(rows))
    assert curve(store)["accuracy"] == pytest.approx(1 - len(lost) / len(rows))


def test_a_real_models_context_counts(tmp_path: Path) -> None:
    lm = load("factworld-tiny")
    questions = questions_of("mmlu", tmp_path)
    (answer,) = ask(lm, questions.asked[:1], questions.definition.answer)
    assert answer.n_prompt_tokens > (lm.context_tokens or 0) and not answer.fits
    (text,) = ask(lm, questions.asked[:1], read_definition("bbh").answer)
    assert not text.fits and text.text is None


# --- what cannot be read


def test_no_hub_names_the_local_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"did not give 'tau/commonsense_qa'.*folder with dev_rand_split.jsonl instead"
    ):
        make_questions(Wanted(name="commonsense_qa"))
    with pytest.raises(InputError, match=r"no revision of 'clue/clue' is pinned; give one with revision"):
        make_questions(Wanted(name="c3"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        make_questions(Wanted(name="rte", path=str(tmp_path / "none")))
    with pytest.raises(InputError, match=r"has no file dev.jsonl \(or .gz\) of its test examples"):
        make_questions(Wanted(name="rte", path=str(tmp_path)))
    WRITERS["mmlu"](tmp_path / "mmlu", 8)
    with pytest.raises(InputError, match=r"group abstract_algebra; name the groups that are there"):
        make_questions(Wanted(name="mmlu", path=str(tmp_path / "mmlu")))
    with pytest.raises(InputError, match=r"no groups \['anatomi'\]"):
        make_questions(Wanted(name="mmlu", path=str(tmp_path / "mmlu"), groups=("anatomi",)))
    (tmp_path / "dev.jsonl").write_text('{"premise": "a", "label": "entailment"}\n')
    with pytest.raises(
        InputError, match=r"rte, dev.jsonl, record 0: .*hypothesis.*check that the file is the published one"
    ):
        make_questions(Wanted(name="rte", path=str(tmp_path)))
    (tmp_path / "dev.jsonl").write_text("premise\n")
    with pytest.raises(InputError, match=r"dev.jsonl is not jsonl"):
        make_questions(Wanted(name="rte", path=str(tmp_path)))


PLAIN = """title: x
paper: y
source: {hub: a/b, splits: {test: t}, files: {test: d.jsonl}}
fields: {q: record.q, a: record.a}
prompt: "{{ q }}"
choices: ["yes", "no"]
gold: a
answer: {kind: choices}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"{{ q }}"', '"{{ nothing }}"', "'nothing' is undefined"),
        ('"{{ q }}"', '"{{ q"', "definition's templates"),
        ('["yes", "no"]', '"["', "definition's templates"),
        ('["yes", "no"]', '"5"', "definition's templates"),
        ("record.q,", "1 / 0,", "division"),
        ("gold: a", "gold: '[]'", "gold is an empty list"),
        ("gold: a", "gold: q", "the answer 'Q' is none of"),
        ("hub: a/b", "generator: nope", "no generator 'nope'"),
        ("test: d.jsonl", "test: /d.jsonl", "patterns within the folder"),
        ("kind: choices", "kind: choices, until: x", "takes no labels and no until"),
        ("kind: choices", "kind: text, tokens: 3, labels: {maybe: x}", "the answer 'yes' is none of"),
    ],
)
def test_mistakes_in_a_definition_are_said(old: str, new: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"q": "Q", "a": "yes"}\n')
    assert old in PLAIN
    (tmp_path / "mine.yaml").write_text(PLAIN.replace(old, new))
    with pytest.raises(InputError, match=re.escape(message)):
        make_questions(Wanted(name=str(tmp_path / "mine.yaml"), path=str(tmp_path)))
    (tmp_path / "mine.yaml").write_text(PLAIN)
    assert len(make_questions(Wanted(name=str(tmp_path / "mine.yaml"), path=str(tmp_path))).asked) == 1


def test_files_that_stand_there_twice_are_not_read_twice(tmp_path: Path) -> None:
    WRITERS["commonsense_qa"](tmp_path, 8)
    plain = tmp_path / "dev_rand_split.jsonl"
    (tmp_path / "dev_rand_split.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert len(make_questions(Wanted(name="commonsense_qa", path=str(tmp_path))).asked) == 8
    WRITERS["mmlu"](tmp_path / "mmlu", 8)
    (tmp_path / "mmlu" / "copy").mkdir()
    (tmp_path / "mmlu/copy/anatomy_test.csv").write_bytes((tmp_path / "mmlu/test/anatomy_test.csv").read_bytes())
    with pytest.raises(InputError, match=r"holds anatomy_test.csv in several folders"):
        make_questions(Wanted(name="mmlu", path=str(tmp_path / "mmlu"), groups=("anatomy",)))


def test_records_without_an_answer_among_the_letters_are_left_out(tmp_path: Path) -> None:
    """Three published records of BBH are so."""
    WRITERS["bbh"](tmp_path, 10)
    path = tmp_path / "date_understanding.json"
    found = json.loads(path.read_text())
    found["examples"][3]["target"] = "day 3"
    path.write_text(json.dumps(found))
    for name in ("bbh", "bbh_choices"):
        asked = make_questions(Wanted(name=name, path=str(tmp_path), groups=("date_understanding",), shots=0)).asked
        assert len(asked) == 9


def test_a_broken_definition_lists_every_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: x\npaper: y\nsource: {hub: a/b}\nprompt: p\ngold: g\ncolour: red\nanswer: {kind: text}\n")
    with pytest.raises(InputError) as caught:
        make_questions(Wanted(name=str(file)))
    text = str(caught.value)
    assert "4 errors" in text and "colour" in text and "fields" in text and "splits.test" in text and "tokens" in text
    with pytest.raises(
        InputError, match=r"no benchmark 'sst' \(did you mean 'sst2'\?\); expected some of \['acceptability'"
    ):
        make_questions(Wanted(name="sst"))
