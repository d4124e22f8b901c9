"""Models in a worker's memory: with which micro-batches a run goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from storage.store import Store
from tasks.errors import ClusterError
from tasks.workers.loaded_models import FAKE_GPUS, Models, device_for
from tasks.workers.worker import Worker
from tests.tasks.support import finish, plan, prepare


def test_a_run_keeps_the_micro_batches_with_which_whoever_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting: Iterator[int] = iter((300, 200, 100))
    monkeypatch.setattr("tasks.workers.loaded_models.tokens_that_fit", lambda _lm: next(fitting))
    planned = plan(tmp_path, facts={"name": "factworld", "size": 2}, editors=["no_op"])
    run = next(run for run in planned.runs if run.editor == "no_op")
    store = Store(planned.store)
    waiting = Models(store, "cpu")
    assert waiting.sized(run).execution.compute.tokens_per_forward == 300, (
        "nobody has begun it: what fits into memory now"
    )

    worker = Worker(planned.store)
    prepare(planned, worker)
    finish(store, worker, run)
    (begun,) = store.rows(store.read_commit(run.run_id, "segment-000000"), "runs")
    assert begun["tokens_per_forward"] == 200
    assert waiting.sized(run).execution.compute.tokens_per_forward == 200, "another worker has begun it"
    assert Models(store, "cpu").sized(run).execution.compute.tokens_per_forward == 200


@pytest.mark.skipif(torch.accelerator.is_available(), reason="torch sees an accelerator here")
def test_a_worker_with_gpus_that_torch_does_not_see_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU it would refuse what other workers have made, unit after unit."""
    monkeypatch.delenv(FAKE_GPUS, raising=False)
    assert device_for(0) == "cpu"
    with pytest.raises(ClusterError, match=r"has 0.5 GPUs for a worker by Ray's account, and torch .* sees none"):
        device_for(0.5)
    monkeypatch.setenv(FAKE_GPUS, "1")
    assert device_for(0.5) == "cpu"
