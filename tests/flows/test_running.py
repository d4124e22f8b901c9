"""What stands before a run: whether there is anything to do, and what is started side by side."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.running import finished
from tests.tasks.support import all_stages, plan

PROGRAM = """
import sys, threading, time
from flows.running import _import_what_both_read

class Slow:
    "Holds up whoever imports a part of pydantic.v1 in another thread, in the midst of the package."
    def find_spec(self, name, path, target=None):
        if name == "pydantic.v1.class_validators" and threading.current_thread() is not threading.main_thread():
            inside.set()
            time.sleep(0.5)

def as_prefects_server():
    try:
        import pydantic.v1
    except ImportError as error:
        wrong.append(error)

inside, wrong = threading.Event(), []
sys.meta_path.insert(0, Slow())
if sys.argv[1] == "as a run does":
    _import_what_both_read()
other = threading.Thread(target=as_prefects_server)
other.start()
inside.wait(1)
from pydantic.v1.fields import ModelField  # as Ray does
other.join()
sys.exit(bool(wrong))
"""


def test_two_threads_do_not_import_halves_of_one_package() -> None:
    """A package whose modules import each other is found half made by the second of two threads."""

    def code(how: str) -> int:
        return subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=False).returncode

    assert code("at once") != 0, "this is what goes wrong"
    assert code("as a run does") == 0


def test_a_plan_of_which_nothing_is_left_needs_no_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    small = {"editors": ["no_op"], "facts": {"name": "factworld", "size": 2}, "layers": [0]}
    planned = plan(tmp_path, score={"every_edits": 0, "benchmarks": []}, **small)
    assert finished(planned) is None, "all of it is to be done"
    assert not all_stages(planned).failed
    report = finished(planned)
    assert report is not None and report.endswith("report-t.html")
    written = Path(report).stat().st_mtime_ns
    assert finished(planned) == report and Path(report).stat().st_mtime_ns == written, "it is current, and left alone"
    Path(report).unlink()
    assert finished(planned) == report and Path(report).exists(), "it is drawn again, and no more"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert finished(planned) is None, "a server is to be told"
