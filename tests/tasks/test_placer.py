"""Where workers go: what nodes hold, what is refused at once, and which node is taken first."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from editing.model.bundled import bundled_folder
from tasks.data.model_files import local_folder, resolve_model, weight_bytes
from tasks.errors import ClusterError, InputError
from tasks.specs.placement import Placement
from tasks.workers.placer import Node, Placer, Shape, cluster, living_nodes
from tests.end_to_end.support import wait_until

GIB = 2**30


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Shape(1, 0, 0), 8),
        (Shape(3, 0, 0), 2),
        (Shape(1, 1, 0), 4),
        (Shape(1, 2, 0), 2),
        (Shape(1, 3, 0), 1),
        (Shape(1, 8, 0), 0),
        (Shape(1, 0.5, 0), 8),
        (Shape(1, 0.4, 0), 8),  # two to a GPU
        (Shape(1, 0.6, 0), 4),
        (Shape(1, 0.1, 0), 8),  # as many as there are CPUs
        (Shape(1, 0, 5 * GIB), 3),
        (Shape(1, 0, 17 * GIB), 0),
    ],
)
def test_what_a_node_holds(shape: Shape, expected: int) -> None:
    assert Node("n", "here", 8, 4, 16 * GIB).holds(shape) == expected


def test_the_weights_in_memory() -> None:
    model = resolve_model("factworld-tiny")
    size = (Path(model.folder) / "model.safetensors").stat().st_size
    assert weight_bytes(model) == size
    assert weight_bytes(resolve_model("factworld-tiny", dtype="bfloat16")) == size // 2


def test_a_model_that_is_elsewhere_on_this_machine_is_found_and_compared(tmp_path: Path) -> None:
    model = resolve_model("factworld-tiny")
    moved = replace(model, folder=str(tmp_path / "nowhere"))
    assert local_folder(model) == model.folder
    assert local_folder(moved) == str(bundled_folder("factworld-tiny"))
    with pytest.raises(InputError, match=r"is not the one of the plan on .*: digest .* expected other"):
        local_folder(replace(moved, digest="other"))


@pytest.mark.parametrize("failures", [1, 2])
def test_an_embedded_cluster_that_misses_rays_limit_is_started_once_more(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's limit is only missed under load, so that here a start that fails stands for it."""
    started: list[subprocess.Popen[bytes]] = []

    def init(**_: Any) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        if len(started) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    try:
        if failures == 1:
            with cluster(Placement()):
                assert started[1].poll() is None
        else:
            with pytest.raises(ClusterError, match=r"timed out during startup.*try again, or with less beside it"):
                cluster(Placement()).__enter__()
        assert len(started) == 2
        assert started[0].wait(10) == -signal.SIGKILL, "what the first start left would be in the way"
    finally:
        for each in started:
            each.kill()
            each.wait()


@pytest.fixture(scope="module")
def embedded() -> Iterator[None]:
    with cluster(Placement()):
        yield


@pytest.mark.slow
def test_what_no_node_holds_is_refused_with_what_each_has(embedded: None, tmp_path: Path) -> None:
    for placement, said in ((Placement(threads=1000), "1000 CPUs"), (Placement(gpus_per_model=2), "2 GPUs")):
        with pytest.raises(InputError, match=rf"a worker takes .*{said}.*no node has room for one: .* CPUs, 0 GPUs"):
            Placer(str(tmp_path), placement)


@pytest.mark.slow
def test_a_node_without_the_models_files_or_with_others_is_left_out_and_said_why(
    embedded: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one node that is here is asked as if it had just joined."""
    model = resolve_model("factworld-tiny")
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    own = resolve_model(str(copy))
    cases = {
        "": own,
        "digest": replace(own, digest="other"),
        "does not exist": replace(own, folder=f"{copy}-elsewhere"),
    }
    for said, wanted in cases.items():
        placer = Placer(str(tmp_path), Placement(), [own])
        placer._models = [wanted]
        placer._fit.clear()
        assert placer.capacity() == 0 and placer.preparing(), "it is being asked"
        assert wait_until(lambda placer=placer: placer.capacity() >= 0 and not placer.preparing(), seconds=60)
        assert (placer.capacity() >= 1) is (said == "")
        assert said in placer.problems() and bool(placer.problems()) is bool(said)
        assert ("is left out until the next run" in caplog.text) is bool(said)


@pytest.mark.slow
def test_a_node_on_which_workers_do_not_start_is_left_out_while_there_is_another(
    embedded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,) = living_nodes()
    placer, far = Placer(str(tmp_path), Placement()), Node("a" * 56, "far", 4, 0, here.memory)
    monkeypatch.setattr("tasks.workers.placer.living_nodes", nodes_of(here, far))
    placer._fit[far.node_id] = True

    def fail(node: Node) -> None:
        worker = object()
        placer._placed[worker] = node.node_id
        assert placer.ended(worker, unfit="no boto3")

    fail(far)
    placer._placed["good"] = far.node_id
    placer.started("good")
    fail(far)
    fail(far)
    assert placer.problems() == "", "one that started lies between them"
    fail(far)
    assert placer.problems() == "node far: no boto3" and placer.capacity() == int(here.cpus)
    for _ in range(5):
        fail(here)
    assert placer.capacity() == int(here.cpus), "the last one is never left out"


@pytest.mark.slow
def test_as_many_workers_as_asked_for(embedded: None, tmp_path: Path) -> None:
    (node,) = living_nodes()
    assert Placer(str(tmp_path), Placement(actors=1)).capacity() == 1
    assert Placer(str(tmp_path), Placement(threads=int(node.cpus))).capacity() == 1
    assert Placer(str(tmp_path), Placement()).capacity() == int(node.cpus)


def nodes_of(*nodes: Node) -> Any:
    return lambda: list(nodes)


@pytest.mark.slow
def test_the_node_with_most_room_comes_first(embedded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wished for is looked at, since only one node is really here."""
    wished: list[str] = []

    asked: list[tuple[float, float, float]] = []

    class Remote:
        def options(self, **given: Any) -> "Remote":
            wished.append(given["scheduling_strategy"].node_id)
            asked.append((given["num_cpus"], given["num_gpus"], given["memory"]))
            return self

        def remote(self, *_: Any, **__: Any) -> object:
            return object()

    (here,) = living_nodes()
    names = {here.node_id: "here", "a" * 56: "far"}
    placer = Placer(str(tmp_path), Placement(), [resolve_model("factworld-tiny")])
    far = Node("a" * 56, "far", 4, 0, here.memory)
    monkeypatch.setattr("tasks.workers.placer.living_nodes", nodes_of(here._replace(cpus=2), far))
    placer._fit[far.node_id] = True  # it cannot be asked
    with monkeypatch.context() as patch:
        patch.setattr(ray, "remote", lambda **_: lambda _: Remote())
        for _ in range(6):
            placer.start()
    assert [names[node] for node in wished] == ["far", "far", "here", "far", "here", "far"]
    assert placer.capacity() == 6
    model = resolve_model("factworld-tiny")
    assert set(asked) == {(1.0, 0.0, 2.0 * weight_bytes(model))}
    monkeypatch.setattr("tasks.workers.placer.living_nodes", nodes_of(here._replace(cpus=2, gpus=1)))
    halves = Placer(str(tmp_path), Placement(gpus_per_model=0.5), [model])
    with monkeypatch.context() as patch:
        patch.setattr(ray, "remote", lambda **_: lambda _: Remote())
        halves.start()
    assert asked[-1] == (1.0, 0.5, 1.0 * weight_bytes(model)) and halves.capacity() == 2
