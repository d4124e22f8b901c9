"""Three nodes, a worker on each: whatever is killed, every row is there once, and the tables are those of one machine."""

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from storage.sql import query
from tests.end_to_end.nodes import Nodes, cluster_of
from tests.end_to_end.servers import flow_runs
from tests.end_to_end.support import CHAINS, contents, palimpsest, start, wait_until
from tests.end_to_end.test_killed import ended, segments_done

pytestmark = pytest.mark.xdist_group("cluster")  # three nodes, once
ROLES = ("worker", "node", "driver")
LONG = ("facts.size=200", "commit_every=1", "score.every_edits=8", "compute.chains_in_step=1")
"""Far more than two hundred units, for some minutes."""


@pytest.fixture(scope="module")
def three() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@dataclass
class Killer:
    """Runs an experiment on a cluster to its end while it kills what takes part in it; keeps a log."""

    nodes: Nodes
    variables: dict[str, str]
    said: Path
    """What the drivers print."""
    log: Path | None = None
    seed: str = field(default_factory=lambda: os.environ.get("PALIMPSEST_KILL_SEED") or str(os.getpid()))
    killed: int = 0

    def __post_init__(self) -> None:
        self.rng, self._began = random.Random(self.seed), time.monotonic()
        self.note(f"seed {self.seed}")

    def note(self, line: str) -> None:
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(f"{timedelta(seconds=round(time.monotonic() - self._began))} {line}\n")

    def run(self, store: Path, left: list[str], pause: Callable[[Callable[[], bool]], None], *more: str) -> list[str]:
        """Run to the end, killing what is next in ``left`` after each pause; return what remains.

        Args:
            pause: Waits for the next kill, or until the run is over.
        """
        settings = (f"store={store}", f"compute.ray={self.nodes.address}", "compute.gpus_per_model=1", *more)
        given = ("run", str(CHAINS), *(part for setting in settings for part in ("--set", setting)))
        while True:
            run = start(*given, log=self.said, **self.variables)
            with ended(run):
                while run.poll() is None and left:
                    pause(lambda run=run: run.poll() is not None)
                    if run.poll() is None and self._kill(left[0], run.pid):
                        self.killed += 1
                        self.note(f"kill {self.killed}: {left[0]}, with {segments_done(store)} segments committed")
                        role = left.pop(0)
                        if role == "driver":
                            run.wait(30)
                        if role == "node":
                            self.nodes.start()
                code = run.wait(600)
            self.note(f"the driver ended with {code}, {segments_done(store)} segments committed")
            if code == 0:
                return left
            assert code == -9, self.said.read_text()[-4000:]

    def _kill(self, role: str, driver: int) -> bool:
        found: dict[str, Callable[[], list[psutil.Process]]] = {
            "worker": self.nodes.workers,
            "node": self.nodes.raylets,
            "driver": lambda: [psutil.Process(driver)],
        }
        candidates = found[role]()
        if candidates:
            self.rng.choice(candidates).kill()
        return bool(candidates)


@pytest.fixture
def killer(three: Nodes, server: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Killer:
    log = request.config.getoption("--soak-log")
    return Killer(three, three.variables | server, tmp_path / "said", log and log.absolute())


@pytest.mark.minutes
def test_every_role_killed_again_and_again(
    chains_store: Path, killer: Killer, server: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    left = [role for role in ROLES for _ in range(request.config.getoption("--kills"))]
    killer.rng.shuffle(left)
    killer.note(f"each of {', '.join(ROLES)} is killed {len(left) // len(ROLES)} times, a little after a few segments")
    stores: list[Path] = []
    n_crashed = 0
    while left:
        store = tmp_path / f"store-{len(stores)}"
        stores.append(store)

        def pause(over: Callable[[], bool], store: Path = store) -> None:
            aim = segments_done(store) + killer.rng.randint(1, 2)
            wait_until(lambda: over() or segments_done(store) >= aim, seconds=240)
            time.sleep(killer.rng.uniform(0, 0.3))

        left = killer.run(store, left, pause)
        assert contents(store) == contents(chains_store), f"{store.name} differs after the kills of seed {killer.seed}"
        crashed = [run for run in flow_runs(server["PREFECT_API_URL"], store) if run["state_type"] == "CRASHED"]
        assert all("its driver was killed" in str(run["state"]) for run in crashed)
        n_crashed += len(crashed)
        killer.note(f"{store.name}: every table equals that of the run that nobody killed; kills left: {len(left)}")
    assert n_crashed == request.config.getoption("--kills"), "Prefect knows of each driver that was killed"


@pytest.mark.slow
@pytest.mark.minutes
def test_two_hundred_units_and_a_kill_every_minute(
    server: dict[str, str], killer: Killer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On three nodes, until nothing is left to be done."""
    killer.note("200 units on three nodes, something is killed every 30 to 60 s")
    options = [part for setting in (f"store={tmp_path / 'unkilled'}", *LONG) for part in ("--set", setting)]
    palimpsest("run", str(CHAINS), *options, timeout=900, **server)

    def pause(over: Callable[[], bool]) -> None:
        wait_until(over, seconds=killer.rng.uniform(30, 60))

    store = tmp_path / "store"
    killer.run(store, [killer.rng.choice(ROLES) for _ in range(1000)], pause, *LONG)
    (counted,) = query(
        store,
        "SELECT count(*) AS units, count(DISTINCT (run_id, unit_id)) AS different FROM commits WHERE status = 'done'",
    ).to_pylist()
    assert counted["units"] == counted["different"] >= 200 and killer.killed >= 3
    key = "(run_id, purpose, probe_id, edited_at, scored_at)"
    (scores,) = query(store, f"SELECT count(*) AS n, count(DISTINCT {key}) AS different FROM fact_scores").to_pylist()
    assert scores["n"] == scores["different"] > 0, "exactly once"
    assert contents(store) == contents(tmp_path / "unkilled"), f"it differs after the kills of seed {killer.seed}"
    killer.note(
        f"{counted['units']} units, each committed once, {killer.killed} kills; its tables are those without kills"
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [*(pytest.param(n, marks=pytest.mark.minutes) for n in (1, 2)), 3])
def test_the_tables_do_not_depend_on_how_many_workers_there_are(
    count: int, chains_store: Path, three: Nodes, server: dict[str, str], tmp_path: Path
) -> None:
    given = (f"store={tmp_path / 'store'}", f"compute.ray={three.address}", f"compute.actors={count}")
    options = [part for setting in (*given, "compute.gpus_per_model=1") for part in ("--set", setting)]
    palimpsest("run", str(CHAINS), *options, **three.variables, **server)
    assert contents(tmp_path / "store") == contents(chains_store)


@pytest.mark.minutes
def test_doctor_asks_every_node(three: Nodes, server: dict[str, str], tmp_path: Path) -> None:
    given = (f"store={tmp_path / 'store'}", f"compute.ray={three.address}", "compute.gpus_per_model=0.5")
    options = [part for setting in given for part in ("--set", setting)]
    assert wait_until(lambda: three.alive() == 3, seconds=90), "a node that was killed is not counted any more"
    said = palimpsest("doctor", str(CHAINS), *options, **three.variables, **server).stdout
    assert "3 nodes, 6 workers: " in said and said.count(": 2 CPUs, 1 GPUs") == 3 and "fails" not in said, (
        "two share a GPU"
    )
    assert f"with the server at {server['PREFECT_API_URL']}" in said
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = palimpsest("doctor", str(CHAINS), *options, check=False, **wrong, **server)
    assert done.returncode == 1 and "the same token on every node" in done.stdout


@pytest.mark.slow
@pytest.mark.minutes
def test_the_head_is_killed(chains_store: Path, server: dict[str, str], tmp_path: Path) -> None:
    """The driver ends after a minute; on a cluster that was started anew the same command goes on."""
    store, log = tmp_path / "store", tmp_path / "log"
    settings = (f"store={store}", "compute.gpus_per_model=1")
    given = ("run", str(CHAINS), *(part for setting in settings for part in ("--set", setting)))
    with cluster_of(2) as nodes:
        run = start(*given, "--set", f"compute.ray={nodes.address}", log=log, **nodes.variables, **server)
        with ended(run):
            assert wait_until(lambda: segments_done(store) >= 1 or run.poll() is not None, seconds=240)
            nodes.head().kill()
            assert run.wait(180) not in (0, None), log.read_text()[-3000:]
    with cluster_of(2) as nodes:
        palimpsest(*given, "--set", f"compute.ray={nodes.address}", **nodes.variables, **server)
    assert contents(store) == contents(chains_store)
    states = [run["state_type"] for run in flow_runs(server["PREFECT_API_URL"], store)]
    assert states == ["CRASHED", "COMPLETED"]
