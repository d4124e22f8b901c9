"""Questions from definitions: examples in a seeded order, with their shots, as the model will read them; kept in the store."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from editing.errors import TokenizationError
from editing.measure.downstream import Question
from storage.commits import Commit, CommitInfo
from storage.digests import digest_of
from storage.store import Store
from tasks.benchmarks.definition import AnswerRule, Definition, ShotSource, read_definition
from tasks.benchmarks.examples import PLACE, Row, has_split, read_examples, unfolded
from tasks.benchmarks.own_file import definition_of_file
from tasks.benchmarks.sandbox import LIMITS
from tasks.data.expressions import ERRORS as EXPRESSION_ERRORS
from tasks.data.expressions import evaluate, render
from tasks.data.text_files import open_text
from tasks.errors import InputError

if TYPE_CHECKING:
    from editing.model.tokens import PromptFormat

ANSWERING_VERSION = 2
"""Raised when an answer changes meaning or value; part of the questions' digest, so that answers never mix."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A benchmark as an experiment asks for it."""

    name: str
    path: str | None = None
    file: str | None = None
    """Its questions, all in one file of one's own; a definition says what differs from how such a file is asked."""
    revision: str | None = None
    groups: tuple[str, ...] | None = None
    shots: int | None = None
    shots_from: ShotSource | None = None
    shots_file: str | None = None
    extract: Literal["all", "code_block"] | None = None
    """Of written programs, another part of the answer than the definition takes."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """A benchmark's questions in the order in which they are asked."""

    definition: Definition
    asked: tuple[Question, ...]
    n_shots: int
    shots_from: str

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the answers, beside the questions' own texts."""
        return {
            "rule": self.definition.answer.model_dump(mode="json"),
            "version": ANSWERING_VERSION,
            "n_shots": self.n_shots,
            "shots_from": self.shots_from,
            **({"limits": LIMITS} if self.definition.runs_code else {}),
        }

    @cached_property
    def run_id(self) -> str:
        return f"questions-{digest_of({**self.recipe, 'asked': [asdict(question) for question in self.asked]})}"


@dataclass(frozen=True, kw_only=True)
class _Example:
    example_id: str
    group: str
    values: Mapping[str, Any]
    gold: tuple[str, ...]


def make_questions(wanted: Wanted) -> Questions:
    """Read a benchmark and write out its questions.

    Raises:
        InputError: Its definition, its data or a record cannot be used; says which.
    """
    definition = _as_wanted(definition_of(wanted.name, wanted.file), wanted)
    shots = definition.shots
    of_groups = _by_group(definition, wanted.path, "test")
    questions: list[list[Question]] = []
    for group, examples in of_groups.items():
        ordered = _ordered(definition, examples, f"order-{definition.order.seed}-{group}")
        given, held_out = _shots(definition, group, ordered, wanted.path)
        asked = [example for example in ordered if example.example_id not in held_out]
        try:
            front = _front(definition, group, given)
        except EXPRESSION_ERRORS as error:
            raise InputError(
                f"benchmark {definition.name}, {group or 'all'}: its shots: {error}; mend its templates "
                "(docs/add-a-benchmark.md)"
            ) from error
        questions.append([_question(definition, front, example) for example in asked])
    n_shots = shots.count if shots.source != "file" else 0
    source = "none" if not shots.count and shots.source != "file" else shots.source
    return Questions(definition=definition, asked=tuple(_in_turn(questions)), n_shots=n_shots, shots_from=source)


def definition_of(name: str, file: str | None) -> Definition:
    """Return the definition of a benchmark by its name, of a file of questions, or of both.

    Raises:
        InputError: There is no such benchmark or file, or one of them cannot be used.
    """
    if file is None:
        return read_definition(name)
    found = definition_of_file(Path(file))
    if name.endswith(".yaml"):
        return read_definition(name, found)
    return Definition.model_validate({**found, **({"name": name} if name else {})})


def _as_wanted(definition: Definition, wanted: Wanted) -> Definition:
    unknown = sorted(set(wanted.groups or ()) - set(definition.groups))
    if unknown:
        raise InputError(
            f"benchmark {definition.name}: no groups {unknown}; expected some of {list(definition.groups)}"
        )
    changes: dict[str, Any] = {}
    if wanted.shots is not None:
        changes["count"] = wanted.shots
    if wanted.shots_file is not None:
        changes |= {"source": "file", "file": wanted.shots_file}
    if wanted.shots_from is not None:
        changes["source"] = wanted.shots_from
    shots = definition.shots.model_copy(update=changes)
    if shots.source == "file" and shots.file is None:
        raise InputError(f"benchmark {definition.name}: shots_from: file without shots_file; give the text's path")
    groups = {name: definition.groups[name] for name in wanted.groups} if wanted.groups else definition.groups
    source = definition.source.model_copy(update={"revision": wanted.revision} if wanted.revision else {})
    answer = definition.answer.model_copy(update={"extract": wanted.extract} if wanted.extract else {})
    return definition.model_copy(update={"shots": shots, "groups": groups, "source": source, "answer": answer})


def _by_group(definition: Definition, folder: str | None, split: str) -> dict[str, list[_Example]]:
    """Return the examples of a split by group, numbered as they are published."""
    source = definition.source
    patterns = [source.config or "", *(p for some in source.files.values() for p in some)]
    apart = any("{group}" in pattern for pattern in patterns)
    found: dict[str, list[_Example]] = {}
    for name in definition.groups if apart else [None]:
        rows = read_examples(definition, split, name, folder)
        for example in _examples(definition, rows, name, split, local=folder is not None):
            found.setdefault(example.group, []).append(example)
    if definition.groups:
        missing = [name for name in definition.groups if name not in found]
        if missing:
            raise InputError(f"benchmark {definition.name}: no {split} examples of {missing}; found {sorted(found)}")
        return {name: found[name] for name in definition.groups}
    if not any(found.values()):
        local: Any = source.files.get(split, ())  # type: ignore[call-overload]
        place = ", ".join(local) if folder is not None else source.hub or source.generator
        raise InputError(
            f"benchmark {definition.name}: there are no {split} examples in {place}; check that the file is the published "
            "one, and what the definition keeps"
        )
    return found


def _examples(
    definition: Definition, rows: Sequence[Row], group: str | None, split: str, *, local: bool
) -> Iterator[_Example]:
    fields = definition.fields | (definition.file_fields if local else {})
    levels = definition.source.levels if local else {}
    numbers: dict[str, int] = {}
    for row in rows:
        try:
            for item in unfolded(levels, row, evaluate):
                values: dict[str, Any] = {"group": group or "", **item}
                values |= definition.groups.get(values["group"], {})
                for name, expression in fields.items():
                    values[name] = evaluate(expression, values)
                    if name == "group":
                        values |= definition.groups.get(str(values["group"]), {})
                mine = str(values["group"])
                if definition.groups and mine not in definition.groups:
                    continue
                if split in definition.keep and not evaluate(definition.keep[split], values):
                    continue
                gold = evaluate(definition.gold, values)
                number = numbers[mine] = numbers.get(mine, -1) + 1
                golds = tuple(map(str, gold)) if isinstance(gold, (list, tuple)) else (str(gold),)
                if not golds:
                    raise ValueError("gold is an empty list; expected a right answer")
                values["gold"] = golds[0]
                ident = "-".join(
                    part for part in (definition.name, mine, split, f"{number:05d}") if part and part != "test"
                )
                yield _Example(example_id=ident, group=mine, values=values, gold=golds)
        except EXPRESSION_ERRORS as error:
            raise InputError(
                f"benchmark {definition.name}, {row[PLACE]}: {error}; found {str(row['record'])[:200]}; check that the file is "
                "the published one, or mend the definition"
            ) from error


def _ordered(definition: Definition, examples: Sequence[_Example], seed: str) -> list[_Example]:
    order = list(examples)
    if definition.order.seed is not None:
        random.Random(f"{definition.name}-{seed}").shuffle(order)
    return _balanced(order) if definition.order.balanced else order


def _balanced(examples: Sequence[_Example]) -> list[_Example]:
    """Return as many examples of each label as the rarest has, one of each in turn."""
    labels: dict[str, list[_Example]] = {}
    for example in examples:
        labels.setdefault(example.gold[0], []).append(example)
    return [example for turn in zip(*(labels[name] for name in sorted(labels)), strict=False) for example in turn]


def _shots(
    definition: Definition, group: str, ordered: Sequence[_Example], folder: str | None
) -> tuple[list[_Example], set[str]]:
    """Return a group's shots, and the ids of examples that are not asked because they are shots."""
    shots = definition.shots
    if shots.source == "file" or not shots.count:
        return [], set()
    if shots.source == "dev" and not has_split(definition.source, "dev", local=folder is not None):
        if len(ordered) <= shots.count:
            raise InputError(f"benchmark {definition.name}: {len(ordered)} examples do not give {shots.count} shots")
        # The end of the order: the same questions are asked with any number of shots, as far as they reach.
        pool = list(reversed(ordered))
    else:
        mine = {group: definition.groups[group]} if group in definition.groups else {}
        pool = _by_group(definition.model_copy(update={"groups": mine}), folder, shots.source)[group]
        if shots.order == "seeded":
            random.Random(f"{definition.name}-shots-{group}-{definition.order.seed}").shuffle(pool)
    chosen = (_balanced(pool) if shots.balanced else pool)[: shots.count]
    if len(chosen) < shots.count:
        raise InputError(
            f"benchmark {definition.name}: {len(chosen)} of its {shots.source} examples can be shots; asked for {shots.count}"
        )
    return chosen, {example.example_id for example in chosen}


def _front(definition: Definition, group: str, given: Sequence[_Example]) -> str:
    """Return what stands in front of each question of a group: the description and the shots."""
    shots = definition.shots
    description = render(definition.description, {"group": group, **definition.groups.get(group, {})})
    if shots.source == "file":
        assert shots.file is not None
        return description + open_text(Path(shots.file))
    texts = [
        render(definition.shot, {**example.values, "prompt": render(definition.prompt, example.values)})
        for example in given
    ]
    return description + "".join(text + shots.separator for text in texts)


def _question(definition: Definition, front: str, example: _Example) -> Question:
    choices, values = definition.choices, example.values
    where = f"benchmark {definition.name}, {values[PLACE]}, {example.example_id}"
    try:
        named = (
            evaluate(choices, values) if isinstance(choices, str) else [render(choice, values) for choice in choices]
        )
        tests = evaluate(definition.tests, values) if definition.tests else ()
        prompt = render(definition.prompt, values)
        found = tuple(map(str, named))
    except EXPRESSION_ERRORS as error:
        raise InputError(
            f"{where}: {error}; found {str(values['record'])[:200]}; check that the file is the published one, or mend the "
            "definition's templates (docs/add-a-benchmark.md)"
        ) from error
    labels = found if definition.answer.kind != "text" else tuple(definition.answer.labels or ())
    if (labels or definition.answer.kind != "text") and example.gold[0] not in labels:
        raise InputError(
            f"{where}: the answer {example.gold[0]!r} is none of the labels {labels}; check that the file is the published "
            "one, or mend gold and labels of the definition"
        )
    return Question(
        example_id=example.example_id,
        prompt=front + prompt,
        choices=found,
        gold=example.gold,
        group=example.group,
        tests=tuple(map(str, tests)),
    )


def _in_turn(groups: Sequence[Sequence[Question]]) -> Iterator[Question]:
    """Yield one question of each group in turn, so that the first so many are of all groups."""
    for place in range(max(map(len, groups), default=0)):
        yield from (group[place] for group in groups if place < len(group))


def publish_questions(store: Store, questions: Questions) -> None:
    """Write the table ``benchmark_questions`` of a benchmark, once."""
    if store.is_committed(questions.run_id, "questions"):
        return
    rows = [
        {
            "benchmark": questions.definition.name,
            "position": position,
            "example_id": question.example_id,
            "subset": question.group,
            "prompt": question.prompt,
            "choices": list(question.choices),
            "gold": list(question.gold),
            "tests": list(question.tests),
            "n_shots": questions.n_shots,
            "shots_from": questions.shots_from,
        }
        for position, question in enumerate(questions.asked)
    ]
    definition = questions.definition.model_dump(mode="json")
    info = CommitInfo(kind="questions", spec={**questions.recipe, "definition": definition})
    store.commit(questions.run_id, "questions", {"benchmark_questions": rows}, info)


def read_recipe(store: Store, run_id: str) -> Commit:
    """Return the commit that says how a benchmark is asked."""
    commit = store.read_commit(run_id, "questions")
    if commit is None:
        raise InputError(
            f"the store {store.location} has no questions {run_id}; run the experiment again to write them"
        )
    return commit


def publish_harness(store: Store, run_id: str, recipe: Mapping[str, Any]) -> None:
    """Write how a task of lm-evaluation-harness is asked, once; its questions are the harness's own."""
    if not store.is_committed(run_id, "questions"):
        store.commit(run_id, "questions", {}, CommitInfo(kind="questions", spec={"harness": dict(recipe)}))


def read_questions(store: Store, run_id: str, asked: range) -> tuple[list[Question], AnswerRule, dict[str, Any]]:
    """Return some of the questions that :func:`publish_questions` wrote, the rule for their answers, and the recipe."""
    commit = read_recipe(store, run_id)
    rows = sorted(store.rows(commit, "benchmark_questions"), key=lambda row: int(row["position"]))
    questions = [
        Question(
            example_id=row["example_id"],
            prompt=row["prompt"],
            choices=tuple(row["choices"]),
            gold=tuple(row["gold"]),
            group=row["subset"],
            tests=tuple(row["tests"]),
        )
        for row in rows[asked.start : asked.stop]
    ]
    return questions, AnswerRule.model_validate(commit.spec["rule"]), commit.spec


def check_tokens(form: "PromptFormat", name: str, questions: Sequence[Question]) -> None:
    """Refuse questions that the model cannot be asked: a choice without tokens that tokenizer and model know.

    Raises:
        InputError: Names the question and what is wrong with it.
    """
    choices = {choice: question.example_id for question in reversed(questions) for choice in question.choices}
    prompts = {question.prompt: question.example_id for question in questions} if form.oversized else {}
    texts: list[tuple[str, str, Callable[[str], object]]] = [
        *((ident, choice, form.check_answer) for choice, ident in choices.items()),
        *((ident, prompt, lambda prompt: form.prompts([prompt])) for prompt, ident in prompts.items()),
    ]
    for ident, text, check in texts:
        try:
            check(text)
        except TokenizationError as error:
            raise InputError(f"{name}, question {ident}: {error}") from error
