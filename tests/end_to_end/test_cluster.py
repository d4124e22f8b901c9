"""Three nodes, a worker on each: whatever is killed, every row is there once, and the tables are those of one machine."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.nodes import Nodes, cluster_of
from tests.end_to_end.support import EXPERIMENT, contents, palimpsest, start, wait_until
from tests.end_to_end.test_killed import ended, segments_done


@pytest.fixture(scope="module")
def three() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


N_KILLS = int(os.environ.get("PALIMPSEST_KILLS", "2"))
"""Of each role."""


@pytest.mark.slow
def test_every_role_killed_again_and_again(
    tiny_store: Path, three: Nodes, server: dict[str, str], tmp_path: Path
) -> None:
    seed = os.environ.get("PALIMPSEST_KILL_SEED") or str(os.getpid())
    rng, stores, log = random.Random(seed), [], tmp_path / "log"
    left = [role for role in ("worker", "node", "driver") for _ in range(N_KILLS)]
    rng.shuffle(left)
    while left:
        store = tmp_path / f"store-{len(stores)}"
        stores.append(store)
        left = run_with_kills(three, store, left, rng, log, server)
    assert left == []
    for store in stores:
        assert contents(store) == contents(tiny_store), f"{store.name} differs after the kills of seed {seed}"


def run_with_kills(
    nodes: Nodes, store: Path, left: list[str], rng: random.Random, log: Path, server: dict[str, str]
) -> list[str]:
    """Run the experiment to its end, killing what is next in ``left`` a little after each few segments; return what remains."""
    given = ("run", str(EXPERIMENT), "--set", f"store={store}", "--set", f"compute.ray={nodes.address}")
    given = (*given, "--set", "compute.gpus_per_model=1")
    while True:
        run = start(*given, log=log, **nodes.variables, **server)
        with ended(run):
            while run.poll() is None and left:
                aim = segments_done(store) + rng.randint(1, 3)
                wait_until(lambda run=run, aim=aim: run.poll() is not None or segments_done(store) >= aim, seconds=240)
                time.sleep(rng.uniform(0, 0.3))
                if run.poll() is None and kill(left[0], nodes, run.pid, rng):
                    role = left.pop(0)
                    if role == "driver":
                        run.wait(30)
                    if role == "node":
                        nodes.start()
            code = run.wait(300)
        if code == 0:
            return left
        assert code == -9, log.read_text()[-4000:]


def kill(role: str, nodes: Nodes, driver: int, rng: random.Random) -> bool:
    """Kill one process of a role, if there is one."""
    found: dict[str, Callable[[], list[psutil.Process]]] = {
        "worker": nodes.workers,
        "node": nodes.raylets,
        "driver": lambda: [psutil.Process(driver)],
    }
    candidates = found[role]()
    if not candidates:
        return False
    rng.choice(candidates).kill()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_the_tables_do_not_depend_on_how_many_workers_there_are(
    count: int, tiny_store: Path, three: Nodes, server: dict[str, str], tmp_path: Path
) -> None:
    """On one machine there were two."""
    given = (f"store={tmp_path / 'store'}", f"compute.ray={three.address}", f"compute.actors={count}")
    options = [part for setting in (*given, "compute.gpus_per_model=1") for part in ("--set", setting)]
    palimpsest("run", str(EXPERIMENT), *options, **three.variables, **server)
    assert contents(tmp_path / "store") == contents(tiny_store)


@pytest.mark.slow
def test_doctor_asks_every_node(three: Nodes, server: dict[str, str], tmp_path: Path) -> None:
    given = (f"store={tmp_path / 'store'}", f"compute.ray={three.address}", "compute.gpus_per_model=1")
    options = [part for setting in given for part in ("--set", setting)]
    said = palimpsest("doctor", str(EXPERIMENT), *options, **three.variables, **server).stdout
    assert "3 nodes, 3 workers: 127.0.0.1: 1 CPUs, 1 GPUs" in said and "fails" not in said
    assert f"with the server at {server['PREFECT_API_URL']}" in said
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = palimpsest("doctor", str(EXPERIMENT), *options, check=False, **wrong, **server)
    assert done.returncode == 1 and "the same token on every node" in done.stdout
