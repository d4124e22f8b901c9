"""The benchmarks of an experiment: read, checked and published before any work."""

from flows.spec import BenchmarkSpec, Experiment
from storage.store import Store
from tasks.errors import InputError
from tasks.identity import BenchmarkRef
from tasks.questions import Questions, Wanted, make_questions, publish_questions
from tasks.sandbox import sandbox_problem


def read_benchmarks(experiment: Experiment, problems: list[str]) -> tuple[BenchmarkRef, ...]:
    """Return the benchmarks as units will name them; add what is wrong with them."""
    found: dict[str, BenchmarkRef] = {}
    for index, spec in enumerate(experiment.score.benchmarks):
        where = f"score.benchmarks.{index}"
        try:
            questions = _questions(spec)
        except InputError as error:
            problems.append(f"{where}: {error}")
            continue
        if (why := _refusal(spec, questions)) is not None:
            problems.append(f"{where}: {why}")
        elif questions.run_id in found:
            problems.append(f"{where}: {spec.name} stands here twice with the same questions; drop one")
        else:
            n_examples = _count(experiment, spec, questions)
            found[questions.run_id] = BenchmarkRef(
                name=questions.definition.name, run_id=questions.run_id, n_examples=n_examples
            )
    return tuple(found.values())


def publish_benchmarks(experiment: Experiment, store: Store) -> None:
    """Write the questions to the store, so that workers can read them and every answer can be traced."""
    for spec in experiment.score.benchmarks:
        publish_questions(store, _questions(spec))


def _questions(spec: BenchmarkSpec) -> Questions:
    wanted = Wanted(
        name=spec.name,
        path=spec.path,
        revision=spec.revision,
        groups=None if spec.groups is None else tuple(spec.groups),
        shots=spec.shots,
        shots_from=spec.shots_from,
        shots_file=spec.shots_file,
    )
    return make_questions(wanted)


def _refusal(spec: BenchmarkSpec, questions: Questions) -> str | None:
    available = len(questions.asked)
    if isinstance(spec.examples, int) and spec.examples > available:
        return f"examples is {spec.examples}, {spec.name} has {available} questions; give a smaller number, or all"
    if not questions.definition.runs_code:
        return None
    if not spec.run_code:
        return (
            f"{spec.name} runs programs that the model writes; say run_code: true to allow it (in a sandbox), or leave "
            "it out"
        )
    return sandbox_problem()


def _count(experiment: Experiment, spec: BenchmarkSpec, questions: Questions) -> int:
    wanted = next(n for n in (spec.examples, questions.definition.examples, experiment.score.examples) if n is not None)
    return len(questions.asked) if wanted == "all" else min(int(wanted), len(questions.asked))
