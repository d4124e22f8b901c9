"""Programs that a model wrote, run in a child process that can do nothing but compute.

The kernel confines it (Landlock and seccomp, through the package sandlock): no network, no file written, no signal to
another process, and limits of time, memory and processes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TIME_S, MEMORY, PROCESSES = 20.0, "512M", 4
"""The slowest reference solution of MBPP takes 6 s."""
LIMITS = {"time_s": TIME_S, "memory": MEMORY, "processes": PROCESSES}
_READABLE = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/dev/null", "/dev/urandom")
# Inside the sandbox: the program runs in a child whose output goes nowhere (an endless print would fill the worker's memory),
# and only the end of its tests knows the word that says so.
_DRIVER = """
import os, sys
word = os.urandom(16).hex().encode()
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    try:
        exec(compile(sys.argv[1], "<program>", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        os.write(write, f"{type(error).__name__}: {error}".rstrip(": ")[:200].encode("utf-8", "replace"))
        os._exit(1)
    os.write(write, word)
    os._exit(0)
os.close(write)
said = os.read(read, 4096)
status = os.wait()[1]
early = f"killed (signal {os.WTERMSIG(status)}: memory)" if os.WIFSIGNALED(status) else "ended before its tests"
print("passed" if said == word else "failed: " + (said.decode("utf-8", "replace") or early))
"""
_PROMISES = {
    "a file was written": "open('/tmp/palimpsest-sandbox', 'w')",
    "a folder was read": "import os; os.listdir('/')",
    "the network was used": "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
    "another process was signalled": "import os; os.kill(1, 0)",
}


class Verdict(NamedTuple):
    """What became of a program that a model wrote."""

    passed: bool
    detail: str
    """Why it failed or was stopped; empty if it passed."""


def sandbox_problem() -> str | None:
    """Return why programs cannot be confined on this machine, None if they can: everything forbidden is tried."""
    try:
        import sandlock  # noqa: F401
    except ImportError:
        return "the package sandlock is missing; run: pip install 'sandlock>=0.9,<0.10'"
    try:
        broken = [
            promise
            for promise, program in _PROMISES.items()
            if "PermissionError" not in run_program(program, ()).detail
        ]
        calm = run_program("", ("assert 1 + 1 == 2",))
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may run
        return f"sandlock does not work here ({error}); it needs Linux 6.7 or newer with Landlock"
    if broken or not calm.passed:
        return f"the sandbox does not confine: {'; '.join(broken) or calm.detail}"
    return None


def run_program(program: str, tests: Sequence[str], *, time_s: float = TIME_S) -> Verdict:
    """Run a program and then its tests; it passes if the end of the tests is reached within all limits."""
    from sandlock import Sandbox
    from sandlock.exceptions import SandlockError

    python = Path(sys.executable).resolve()
    readable = [path for path in (*_READABLE, str(python.parent.parent), sys.base_prefix) if Path(path).exists()]
    box = Sandbox(fs_readable=readable, fs_writable=["/dev/null"], max_memory=MEMORY, max_processes=PROCESSES)
    try:
        result = box.run([str(python), "-I", "-c", _DRIVER, "\n".join([program, *tests])], timeout=time_s)
    except (SandlockError, OSError, ValueError) as error:  # a NUL byte, or too long for a command line
        return Verdict(False, f"not run: {error}")
    said = result.stdout.decode(errors="replace").strip()
    if said == "passed":
        return Verdict(True, "")
    return Verdict(False, said if said.startswith("failed") else _reason(result, time_s))


def _reason(result: object, time_s: float) -> str:
    from sandlock import ExitReason

    if getattr(result, "reason", None) == ExitReason.TIMEOUT:
        return f"stopped: more than {time_s:.0f} s"
    last = getattr(result, "stderr", b"").decode(errors="replace").strip().rpartition("\n")[2]
    return f"stopped: killed by the sandbox (memory beyond {MEMORY}, or a forbidden call) {last[:100]}".strip()
