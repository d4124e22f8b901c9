"""What a run starts side by side."""

import subprocess
import sys

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
