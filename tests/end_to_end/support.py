"""Running the command line in processes of its own, and comparing stores."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from storage.schemas import SCHEMAS
from storage.sql import query_many

EXPERIMENT = Path(__file__).parent / "tiny.yaml"
"""Every stage."""
CHAINS = Path(__file__).parent / "chains.yaml"
"""Chains of segments, for what is killed, stopped and spread over nodes."""
ROOT = Path(__file__).parents[2]
# Clock, host and attempt stand only in these tables; all others must be equal between runs.
EXEMPT_TABLES = {"timings"}
EXEMPT_COLUMNS = {"attempt"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli", *arguments]


def palimpsest(
    *arguments: str, check: bool = True, timeout: float = 900, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
        env=environment() | variables,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def start(*arguments: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    stream = log.open("ab")
    return subprocess.Popen(
        command(*arguments),
        stdout=stream,
        stderr=stream,
        cwd=ROOT,
        start_new_session=True,
        env=environment() | variables,
    )


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return all living descendants of a process that is still alive."""
    if process.poll() is not None:  # its number may be another's by now
        return []
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], bool], *, seconds: float, pause: float = 0.1) -> bool:
    """Return whether the condition came true in time; it is asked after each pause."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause)
    return condition()


def contents(store: Path | str) -> dict[str, list[str]]:
    """Return every table of a store as sorted rows, without what only says when, where and by which attempt."""
    statements = {table: f"SELECT * FROM {table}" for table in SCHEMAS if table not in EXEMPT_TABLES}
    digests = "SELECT run_id, unit_id, kind, first_round, last_round, digest FROM commits WHERE status = 'done'"
    statements["commits"] = digests
    found = query_many(store, list(statements.values()))
    return {name: sorted(map(_line, rows.to_pylist())) for name, rows in zip(statements, found, strict=True)}


def _line(row: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in row.items() if k not in EXEMPT_COLUMNS}, sort_keys=True, default=repr)


def environment() -> dict[str, str]:
    # One Prefect home for all runs of a session: its database takes seconds to make.
    home = Path(tempfile.gettempdir()) / f"palimpsest-tests-{os.getpid()}"
    home.mkdir(exist_ok=True)
    return {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)}
