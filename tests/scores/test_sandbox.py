"""Programs that a model might write: what they must not do is stopped and recorded, and the run goes on."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks.benchmarks.sandbox
from storage.sql import query
from tasks.benchmarks.answering import ask, grade
from tasks.benchmarks.sandbox import run_program, sandbox_problem
from tests.scores.stub import Stub
from tests.scores.test_benchmarks import curve, questions_of, stored

TESTS = ("assert add(1) == 2",)
RIGHT = "def add(x):\n    return x + 1"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listening() -> Iterator[int]:
    """A server on this machine; it must never be reached."""
    server = socket.create_server(("127.0.0.1", 0))
    reached = threading.Event()

    def serve() -> None:
        while True:
            try:
                server.accept()
            except OSError:
                return
            reached.set()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()
    assert not reached.is_set(), "a program reached the network"


def test_what_is_right_passes_and_what_is_wrong_says_why() -> None:
    assert run_program(RIGHT, TESTS) == (True, "")
    assert run_program("import math, re, collections\n" + RIGHT, TESTS).passed
    assert run_program("def add(x):\n    return x", TESTS) == (False, "failed: AssertionError")
    assert "SyntaxError" in run_program("def add(x:", TESTS).detail
    assert "NameError" in run_program("", TESTS).detail
    assert not run_program("x = '\0'", TESTS).passed


@pytest.mark.parametrize("way", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "exit()"])
def test_leaving_before_the_tests_is_no_pass(way: str) -> None:
    verdict = run_program(f"{way}\n{RIGHT}", TESTS)
    assert not verdict.passed and ("before its tests" in verdict.detail or "SystemExit" in verdict.detail)


def test_the_word_that_says_passed_is_not_to_be_had() -> None:
    """Nothing on the command line, and what the program prints goes nowhere."""
    for program in (
        "import sys, os; print('passed', flush=True); os._exit(0)",
        "import os; os.write(1, b'passed\\n'); os._exit(0)",
    ):
        assert not run_program(program, ("assert False",)).passed
    assert run_program("import atexit; atexit.register(print, 'bye')\n" + RIGHT, TESTS).passed
    hidden = "import sys; assert not any(len(a) == 32 for a in sys.orig_argv)\n" + RIGHT
    assert run_program(hidden, TESTS).passed


def test_endless_output_fills_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for program in ("while True: print('x' * 1000000)", "import sys\nwhile True: sys.stderr.write('x' * 1000000)"):
        assert "more than 1 s" in run_program(program, TESTS, time_s=1.0).detail
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024, "KiB"


def test_endless_loop() -> None:
    started = time.monotonic()
    assert run_program("while True: pass", TESTS, time_s=1.0) == (False, "stopped: more than 1 s")
    assert time.monotonic() - started < 8


def test_fork_bomb() -> None:
    verdict = run_program("import os\nwhile True:\n    os.fork()", TESTS, time_s=3.0)
    assert not verdict.passed
    time.sleep(0.5)
    left = [path.name for path in Path("/proc").iterdir() if path.name.isdigit() and _is_bomb(path)]
    assert not left, "its children are gone"


def _is_bomb(process: Path) -> bool:
    try:
        return b"while True:\n    os.fork()" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_ten_gigabytes() -> None:
    verdict = run_program("data = bytearray(10 * 2**30)", TESTS)
    assert not verdict.passed and ("memory" in verdict.detail or "MemoryError" in verdict.detail)


def test_files(tmp_path: Path) -> None:
    target = tmp_path / "written"
    for program in (f"open({str(target)!r}, 'w').write('x')", f"import os; os.mkdir({str(target)!r})"):
        assert "PermissionError" in run_program(program, TESTS).detail
    secret = tmp_path / "secret"
    secret.write_text("s")
    assert "PermissionError" in run_program(f"open({str(secret)!r}).read()", TESTS).detail
    assert "PermissionError" in run_program(f"import os; os.remove({str(secret)!r})", TESTS).detail
    assert not target.exists() and secret.exists()


def test_network(listening: int) -> None:
    program = f"import socket\nsocket.create_connection(('127.0.0.1', {listening}), timeout=2)"
    verdict = run_program(program, TESTS)
    assert not verdict.passed and "Error" in verdict.detail


def test_signals(bystander: subprocess.Popen[bytes]) -> None:
    for victim in (bystander.pid, os.getpid(), "os.getppid()"):
        verdict = run_program(f"import os, signal\nos.kill({victim}, {int(signal.SIGKILL)})", TESTS)
        assert not verdict.passed, victim
    assert bystander.poll() is None


def test_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks among right answers are wrong answers with a reason; the others count."""
    monkeypatch.setattr(tasks.benchmarks.sandbox, "TIME_S", 2.0)
    questions = questions_of("mbpp", tmp_path)
    attacks = {0: "import os\nwhile True: os.fork()", 2: "x = bytearray(10 * 2**30)", 4: f"open('{tmp_path}/w', 'w')"}
    said = {q.prompt: attacks.get(i, q.gold[0]) for i, q in enumerate(questions.asked[:6])}
    store = stored(tmp_path, questions, lambda question: said[question.prompt], limit=6)
    rows = query(
        store.location, "SELECT correct, outcome, detail FROM benchmark_answers ORDER BY example_id"
    ).to_pylist()
    assert sum(row["correct"] for row in rows) == 3 and curve(store)["accuracy"] == 0.5
    assert all(row["outcome"] == "answered" for row in rows)
    assert all(bool(row["detail"]) != row["correct"] for row in rows) and not (tmp_path / "w").exists()


def test_programs_in_fences_count_where_the_recipe_says_so(tmp_path: Path) -> None:
    plain = questions_of("mbpp", tmp_path)
    fenced = questions_of("mbpp", tmp_path, extract="code_block")
    assert plain.run_id != fenced.run_id and plain.asked == fenced.asked
    found = []
    for questions in (plain, fenced):
        (question, *_), rule = questions.asked, questions.definition.answer
        lm: Any = Stub([question], lambda question: f"Here it is:\n```python\n{question.gold[0]}\n```")
        found.append(grade(question, ask(lm, [question], rule)[0], rule, run_program))
    assert [each.correct for each in found] == [False, True]
    assert "SyntaxError" in found[0].detail


def test_it_works_here_and_says_so_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox_problem() is None
    monkeypatch.setitem(sys.modules, "sandlock", None)
    assert "pip install 'sandlock>=0.9,<0.10'" in (sandbox_problem() or "")


def test_a_sandbox_that_does_not_confine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(program: str, checks: Any, **_given: Any) -> Any:
        return tasks.benchmarks.sandbox.Verdict(True, "")

    monkeypatch.setattr(tasks.benchmarks.sandbox, "run_program", careless)
    assert "does not confine" in (sandbox_problem() or "")


def test_nothing_runs_unless_it_is_asked_for(tmp_path: Path) -> None:
    questions = questions_of("mbpp", tmp_path)
    (question, *_), rule = questions.asked, questions.definition.answer
    lm: Any = Stub([question], lambda question: "x")
    with pytest.raises(AssertionError, match="allows code"):
        grade(question, ask(lm, [question], rule)[0], rule)
