"""Programs that a model wrote, run in a child process that can do nothing but compute.

The kernel confines it (Landlock and seccomp, through the package sandlock): no network, no file written, no signal to
another process, and limits of time, memory and processes.
"""

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.answering import Verdict

TIME_S, MEMORY, PROCESSES = 20.0, "512M", 4
"""The slowest reference solution of MBPP takes 6 s."""
_READABLE = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/dev/null", "/dev/urandom")


def sandbox_problem() -> str | None:
    """Return why programs cannot be confined on this machine, None if they can: what is forbidden is tried."""
    try:
        import sandlock  # noqa: F401
    except ImportError:
        return "the package sandlock is missing; run: pip install 'palimpsest[sandbox]'"
    try:
        probe = run_program("import os\nos.listdir('/')\nopen('/tmp/palimpsest', 'w')", ())
        calm = run_program("", ("assert 1 + 1 == 2",))
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may run
        return f"sandlock does not work here ({error}); it needs Linux 6.7 or newer with Landlock"
    if probe.passed or not calm.passed:
        return f"the sandbox does not confine: {probe.detail or 'a file was written'}; {calm.detail}"
    return None


def run_program(program: str, tests: Sequence[str], *, time_s: float = TIME_S) -> Verdict:
    """Run a program and then its tests; it passes if the end of the tests is reached within all limits."""
    from sandlock import Sandbox
    from sandlock.exceptions import SandlockError

    token = secrets.token_hex(16)  # a program that leaves early has not passed
    code = "\n".join([program, *tests, f"print({token!r}, flush=True)"])
    python = Path(sys.executable).resolve()
    readable = [path for path in (*_READABLE, str(python.parent.parent), sys.base_prefix) if os.path.exists(path)]  # noqa: PTH110
    box = Sandbox(fs_readable=readable, fs_writable=[], max_memory=MEMORY, max_processes=PROCESSES)
    try:
        result = box.run([str(python), "-I", "-c", code], timeout=time_s)
    except (SandlockError, OSError, ValueError) as error:  # a NUL byte, or too long for a command line
        return Verdict(False, f"not run: {error}")
    if result.stdout.rstrip().endswith(token.encode()):
        return Verdict(True, "")
    return Verdict(False, _reason(result, time_s))


def _reason(result: object, time_s: float) -> str:
    from sandlock import ExitReason

    reason, code = getattr(result, "reason", None), getattr(result, "exit_code", None)
    if reason == ExitReason.TIMEOUT:
        return f"stopped: more than {time_s:.0f} s"
    if reason in (ExitReason.KILLED, ExitReason.SIGNALED):
        return f"stopped: killed by the sandbox (memory beyond {MEMORY}, or a forbidden call)"
    last = getattr(result, "stderr", b"").decode(errors="replace").strip().rpartition("\n")[2]
    return f"failed: {last[:200]}" if last else f"failed: ended with code {code} before its tests"
