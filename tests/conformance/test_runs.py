"""Every editor as a run of the pipeline: its process is killed inside a segment, another goes on, and nothing differs."""

import multiprocessing as mp
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editing.hparams import editor_names
from editing.methods.editor import editor_class
from storage.store import Store
from tasks.driver.plan import Plan
from tasks.errors import InputError
from tasks.specs.run import RunSpec
from tasks.workers.checkout import checkout
from tests.conformance.cases import batch_size
from tests.conformance.process import do_all
from tests.tasks.support import plan

SETTINGS: dict[str, dict[str, Any]] = {
    "rome": {"steps": 6, "contexts": 2},
    "memit": {"steps": 6, "contexts": 2, "layers": [[0, 1]]},
    "emmet": {"steps": 6, "contexts": 2, "remember": True},
    "alphaedit": {"steps": 6, "contexts": 2, "layers": [[0, 1]]},
    "random_direction": {"steps": 6, "contexts": 2, "layers": [[0, 1]]},
    "ft": {"steps": 5},
    "ft_c": {"steps": 5},
    "malmen": {"steps": 6, "rank": 16, "layers": [[0, 1]]},
    "mend": {"steps": 6, "rank": 16, "layers": [[0, 1]]},
    "ultraedit": {"layers": [[0, 1]]},
    "grace": {"steps": 10},
    "in_context": {},
    "no_op": {},
}
assert set(SETTINGS) == set(editor_names()), "every editor runs"
CLOCK = ("attempt", "unit_id")
TABLES = ("edits", "edit_updates", "rounds", "fact_scores", "training", "logits")
WITHOUT_FOLDER = ("grace", "in_context")


def run_process(planned: Plan, doomed: Callable[[str, str], bool]) -> tuple[str, str]:
    """Do everything in a process; kill it a moment after it begins a unit that is ``doomed``; return its last word."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(
        ["tasks.workers.worker", "tasks.driver.stages", "transformers.generation", "transformers.modeling_utils"]
    )
    listen, tell = context.Pipe(duplex=False)
    process = context.Process(target=do_all, args=(planned, tell))
    process.start()
    tell.close()
    last = ("start", "")
    try:
        while True:
            if not listen.poll(120):
                raise AssertionError(f"nothing happened for two minutes after {last}")
            last = listen.recv()
            if last[0] != "end" and doomed(*last):
                time.sleep(random.uniform(0.0, 0.15))
                process.kill()
                return last
            if last[0] == "end":
                return last
    except EOFError as error:
        raise AssertionError(f"the process died by itself in {last}") from error
    finally:
        process.join()


def rows_of(root: Path, table: str, run_ids: str) -> list[dict[str, Any]]:
    """Return a table's rows of all runs whose id begins so, without what the clock decides."""
    store = Store(root)
    found = [
        {key: value for key, value in row.items() if key not in CLOCK}
        for run_id in store.run_ids()
        if run_id.startswith(run_ids)
        for commit in store.commits(run_id).values()
        for row in store.rows(commit, table)
    ]
    return sorted(found, key=repr)


def digests(store: Store, run: RunSpec) -> list[str | None]:
    return [c.digest for _, c in sorted(store.commits(run.run_id).items()) if c.kind == "segment"]


@pytest.mark.slow
@pytest.mark.parametrize("name", editor_names())
def test_a_killed_run_goes_on_to_the_same_rows(name: str, tmp_path: Path) -> None:
    n = 2 if batch_size(name) > 1 else 1
    changes = {
        "editors": [{"name": name, "batch_sizes": [n], **SETTINGS[name]}],
        "layers": [0],
        "facts": {"name": "factworld", "size": 4 * n},
        "score": {"every_edits": 2 * n, "benchmarks": []},
        "commit_every": 2 * n,
        "training": {"steps_per_segment": 2, "validation": 4},
    }
    plans = {}
    for kind in ("straight", "killed"):
        (tmp_path / kind).mkdir()
        plans[kind] = plan(tmp_path / kind, **changes)
    run = plans["straight"].runs[-1]
    assert run.editor == name
    assert run_process(plans["straight"], lambda kind, unit: False)[0] == "end"
    killed = plans["killed"]
    if killed.trainings:
        assert run_process(killed, lambda kind, unit: unit == "steps-000002")[0] == "train"
    assert run_process(killed, lambda kind, unit: unit == "segment-000002") == ("segment", "segment-000002")
    assert run_process(killed, lambda kind, unit: False)[0] == "end"
    roots = [Path(plans[kind].store) for kind in ("straight", "killed")]
    for table in TABLES:
        one, other = (rows_of(root, table, "train-" if table == "training" else name) for root in roots)
        assert one == other, table
        assert one or table in ("edit_updates", "training"), table
    one, other = (digests(Store(root), run) for root in roots)
    assert one == other and len(one) == 2 and all(one)
    outcomes = {row["outcome"] for row in rows_of(roots[0], "rounds", name)}
    assert outcomes == ({"unchanged"} if name == "no_op" else {"edited"})
    folder = tmp_path / "folder"
    if name in WITHOUT_FOLDER:
        with pytest.raises(InputError, match="changes no weights"):
            checkout(roots[1], run.run_id, after=2 * n, out=folder)
    else:
        assert "logits agree" in checkout(roots[1], run.run_id, after=2 * n, out=folder)


def test_every_editor_class_declares_what_it_is() -> None:
    for name in editor_names():
        cls = editor_class(name)
        assert cls.__doc__ and cls.version >= 1 and isinstance(cls.needs, frozenset), name
