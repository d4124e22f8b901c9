"""The first hour: what somebody wants, and what goes wrong."""

from pathlib import Path

import pytest

from tests.first_hour.mistakes import MISTAKES, NEED_A_MODEL, Mistake, make, prepare
from tests.first_hour.tasks import TASKS, Task, do


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_is_told_of_at_once(mistake: Mistake, tmp_path: Path) -> None:
    """Without anything that takes seconds to import, so that it is told within one; ``python -m tests.first_hour`` shows it."""
    prepare(tmp_path)
    told = make(mistake, tmp_path)
    assert told.rc == 2 and told.message.startswith("error: "), told.message
    for part in mistake.said:
        assert part in told.message, told.message
    assert told.heavy == "[]" or mistake.what in NEED_A_MODEL, told.heavy


def test_a_good_file_is_no_mistake(tmp_path: Path) -> None:
    """Else the messages above might be of anything."""
    prepare(tmp_path)
    assert make(Mistake("nothing", ["plan", "e.yaml"], []), tmp_path).rc == 0


@pytest.mark.minutes
def test_what_is_wanted_in_the_first_hour(tmp_path: Path) -> None:
    assert [(done.wish, done.problem) for done in (do(task, tmp_path) for task in TASKS) if done.problem] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", [TASKS[0], TASKS[2]], ids=lambda task: task.wish)
def test_facts_and_questions_of_ones_own(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    assert do(task, tmp_path).problem == ""
