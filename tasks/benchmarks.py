"""Downstream benchmarks by name."""

from editing.downstream import Question
from editing.factworld.benchmarks import TASKS
from tasks.errors import InputError

BENCHMARKS: dict[str, str] = {
    name: f"fact world, {len(task.labels)} labels, {task.shots} shots, answered by argmax over the vocabulary"
    for name, task in TASKS.items()
}


def load_questions(name: str, count: int) -> tuple[list[Question], int]:
    """Return a benchmark's questions and its number of shots.

    Raises:
        InputError: No such benchmark.
    """
    if name not in TASKS:
        raise InputError(f"no benchmark {name!r}; expected some of {sorted(BENCHMARKS)}")
    return TASKS[name].questions(count), TASKS[name].shots
