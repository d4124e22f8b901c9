"""Every editor as a run of the pipeline, by the worker that Ray runs: killed between segments, resumed, rebuilt, scored."""

from pathlib import Path
from typing import Any

import pytest

from editing.editor import editor_class
from editing.hparams import editor_names
from storage.catalog import query
from storage.store import Store
from tasks.checkout import checkout
from tasks.errors import InputError
from tasks.worker import Worker
from tests.conformance.cases import batch_size
from tests.tasks.support import finish, plan, prepare

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
TABLES = ("edits", "edit_updates", "rounds", "fact_scores", "benchmark_answers", "training", "logits")


def rows_of(root: Path, table: str, run_ids: str) -> list[dict[str, Any]]:
    rows = query(root, f"SELECT * FROM {table} WHERE run_id LIKE '{run_ids}%'").to_pylist()
    plain = [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]
    return sorted(plain, key=repr)


@pytest.mark.slow
@pytest.mark.parametrize("name", editor_names())
def test_a_run_is_resumed_by_another_worker_to_the_same_rows(name: str, tmp_path: Path) -> None:
    n = 2 if batch_size(name) > 1 else 1
    changes = {
        "editors": [{"name": name, "batch_sizes": [n], **SETTINGS[name]}],
        "layers": [0],
        "facts": {"name": "factworld", "size": 6},
        "score": {"every_edits": 3, "benchmarks": []},
        "commit_every": 2,
        "training": {"steps_per_segment": 2, "validation": 4},
    }
    straight, again = tmp_path / "straight", tmp_path / "again"
    for root in (straight, again):
        root.mkdir()
        planned = plan(root, **changes)
        store, run = Store(planned.store), planned.runs[-1]
        assert run.editor == name
        fresh = root == again
        worker = Worker(planned.store)
        if fresh:  # a new worker for every unit: nothing is known but what the store holds
            for job in planned.trainings:
                for unit in job.units():
                    assert Worker(planned.store).do(unit) == "done"
        prepare(planned, worker)
        if fresh:
            from tasks.chain import ready_units

            while units := ready_units(store, run):
                assert Worker(planned.store).do(units[0]) == "done"
        else:
            finish(store, worker, run)
    for table in TABLES:
        prefix = "train-" if table == "training" else name
        one, other = (rows_of(root / "store", table, prefix) for root in (straight, again))
        assert one == other, table
    (store_one, store_two) = (Store(root / "store") for root in (straight, again))
    commits = [
        [c.digest for key, c in sorted(s.commits(run.run_id).items()) if c.kind == "segment"]
        for s in (store_one, store_two)
    ]
    assert commits[0] == commits[1] and all(commits[0])
    outcomes = {row["outcome"] for row in rows_of(straight / "store", "rounds", name)}
    assert outcomes == ({"unchanged"} if name == "no_op" else {"edited"})
    out = tmp_path / "folder"
    if editor_class(name).__name__ in ("Grace", "InContext"):
        with pytest.raises(InputError, match="changes no weights"):
            checkout(straight / "store", run.run_id, after=n, out=out)
    else:
        done = 2 * n if n == 1 else n
        assert "agree" in checkout(straight / "store", run.run_id, after=done, out=out)
