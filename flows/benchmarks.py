"""The benchmarks of an experiment: read, checked and published before any work."""

from collections.abc import Mapping
from dataclasses import dataclass

from flows.score_spec import BenchmarkSpec
from flows.spec import Experiment
from storage.store import Store
from tasks.benchmarks.harness import PREFIX, harness_id, harness_recipe
from tasks.benchmarks.questions import (
    Questions,
    Wanted,
    check_tokens,
    definition_of,
    make_questions,
    publish_harness,
    publish_questions,
)
from tasks.benchmarks.sandbox import sandbox_problem
from tasks.cache import remembered
from tasks.data.checked_model import CheckedModel
from tasks.errors import InputError
from tasks.specs.scoring import BenchmarkRef


@dataclass(frozen=True)
class AskedBenchmark:
    """A benchmark with its questions, as it is published; of lm-evaluation-harness's tasks, their recipe."""

    reference: BenchmarkRef
    questions: Questions | None
    harness: Mapping[str, object] | None = None


def read_benchmarks(
    experiment: Experiment, model: CheckedModel | None, problems: list[str]
) -> tuple[AskedBenchmark, ...]:
    """Return the benchmarks with their questions; add what is wrong with them.

    Args:
        model: The one that reads them, if it is known.
    """
    found: dict[str, AskedBenchmark] = {}
    for index, spec in enumerate(experiment.score.benchmarks):
        where = f"score.benchmarks.{index}"
        try:
            asked = (
                _harness_benchmark(experiment, spec) if spec.name.startswith(PREFIX) else _own(experiment, spec, model)
            )
        except InputError as error:
            own = (
                f"{spec.label}: " if (spec.file or spec.name.endswith(".yaml")) and spec.label not in str(error) else ""
            )
            problems.append(f"{where}: {own}{error}")
            continue
        if asked.reference.run_id in found:
            problems.append(f"{where}: {spec.label} stands here twice with the same questions; drop one")
        found[asked.reference.run_id] = asked
    return tuple(found.values())


def publish_benchmark(asked: AskedBenchmark, store: Store) -> None:
    """Write the questions to the store, so that workers can read them and every answer can be traced."""
    if asked.questions is not None:
        publish_questions(store, asked.questions)
    elif asked.harness is not None:
        publish_harness(store, asked.reference.run_id, asked.harness)


def _harness_benchmark(experiment: Experiment, spec: BenchmarkSpec) -> AskedBenchmark:
    if experiment.model.chat is not False:
        raise InputError(
            f"{spec.name}: lm-evaluation-harness's prompts are not put into a chat template; use chat: false"
        )
    recipe, available = _harness(spec)
    count = _count(experiment, spec, available, None)
    reference = BenchmarkRef(name=spec.name.replace(":", "-"), run_id=harness_id(recipe), n_examples=count)
    return AskedBenchmark(reference, None, recipe)


def _own(experiment: Experiment, spec: BenchmarkSpec, model: CheckedModel | None) -> AskedBenchmark:
    questions = _questions(experiment, spec)
    definition = questions.definition
    if definition.runs_code and not spec.run_code:
        raise InputError(
            f"{spec.label} runs programs that the model writes; say run_code: true to allow it (in a sandbox), or leave it out"
        )
    if definition.runs_code and (why := sandbox_problem()) is not None:
        raise InputError(why)
    if model is not None and model.context is not None and definition.answer.tokens >= model.context:
        raise InputError(
            f"{spec.label} lets a model write {definition.answer.tokens} tokens, and this one reads {model.context} at once, "
            "so that no question fits; leave it out"
        )
    count = _count(experiment, spec, len(questions.asked), definition.examples)
    if model is not None:
        made_of = {"form": model.form_key, "questions": questions.run_id, "count": count}
        remembered("questions", made_of, lambda: check_tokens(model.form, spec.label, questions.asked[:count]))
    return AskedBenchmark(BenchmarkRef(name=definition.name, run_id=questions.run_id, n_examples=count), questions)


def _questions(experiment: Experiment, spec: BenchmarkSpec) -> Questions:
    runs_code = definition_of(spec.name, spec.file).runs_code
    if spec.extract is not None and not runs_code:
        raise InputError(f"{spec.label}: extract is for benchmarks whose answers are programs; leave it out")
    fenced = runs_code and experiment.model.chat is not False
    wanted = Wanted(
        name=spec.name,
        path=spec.path,
        file=spec.file,
        revision=spec.revision,
        groups=None if spec.groups is None else tuple(spec.groups),
        shots=spec.shots,
        shots_from=spec.shots_from,
        shots_file=spec.shots_file,
        extract=spec.extract or ("code_block" if fenced else None),
    )
    return make_questions(wanted)


def _harness(spec: BenchmarkSpec) -> tuple[dict[str, object], int]:
    given = [
        key for key in ("revision", "groups", "shots_from", "shots_file", "extract") if getattr(spec, key) is not None
    ]
    if given or spec.run_code:
        raise InputError(
            f"{spec.name}: {given or 'run_code'} cannot be set here; expected name, path, shots and examples"
        )
    return harness_recipe(spec.name.removeprefix(PREFIX), include=spec.path, shots=spec.shots)


def _count(experiment: Experiment, spec: BenchmarkSpec, available: int, usual: int | None) -> int:
    if isinstance(spec.examples, int) and spec.examples > available:
        raise InputError(
            f"examples is {spec.examples}, {spec.label} has {available} questions; give a smaller number, or all"
        )
    own = "all" if spec.file is not None else None
    wanted = next(n for n in (spec.examples, usual, own, experiment.score.examples) if n is not None)
    return available if wanted == "all" else min(int(wanted), available)
