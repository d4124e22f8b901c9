"""What works on this machine, what is missing, and how to mend it."""

import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tasks.specs.placement import Placement
from tasks.specs.run import ModelRef
from tasks.workers.node_files import describe
from tasks.workers.placer import Placer, cluster, living_nodes, on_each_node

_FETCH_S = 60.0
"""For how long to wait for nodes that fetch the models."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PINNED = {
    "fastapi": ("0.139", "0.151"),
    "sqlalchemy": ("2.0", "2.1"),
    "prefect": ("3.8.8", "3.9"),
    "ray": ("2.60", "2.61"),
}


Finding = tuple[str, str]


def examine(
    store: str, placement: Placement | None = None, resolve: Callable[[], Sequence[ModelRef]] | None = None
) -> list[dict[str, Any]]:
    """Return one row per check: ``ok``, ``note`` (works, with a limit) or ``fails``, with the fix.

    Args:
        placement: Where an experiment wants its workers; an embedded cluster if None.
        resolve: Gives the models of an experiment, which may have to be fetched for it.
    """
    placement, models = placement or Placement(), list[ModelRef]()

    def model() -> Finding:
        models.extend(resolve() if resolve else ())
        return _model(models)

    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("packages", _packages),
        ("accelerator", _accelerator),
        ("memory", _memory),
        ("disk", partial(_disk, store)),
        ("hub", _hub),
        ("model", model),
        ("store", partial(_store, store)),
        ("ray", partial(_ray, store, placement, models)),
        ("prefect", _prefect),
        ("schedules", _schedules),
    )
    rows = []
    for name, check in checks:
        try:
            state, found = check()
        except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
            state, found = "fails", f"{type(error).__name__}: {error}"
        rows.append({"check": name, "state": state, "found": found})
    return rows


def _packages() -> Finding:
    from packaging.version import Version

    wrong = []
    for name, (low, high) in _PINNED.items():
        found = importlib.metadata.version(name)
        if not Version(low) <= Version(found) < Version(high):
            wrong.append(f"{name} {found} (expected >={low},<{high})")
    if wrong:
        return "fails", f"{', '.join(wrong)}; run: pip install -r requirements.lock"
    return "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*_PINNED, "torch", "transformers"))


def _accelerator() -> Finding:
    import torch

    if torch.accelerator.is_available():
        return "ok", f"{torch.accelerator.device_count()} × {torch.accelerator.current_accelerator()}"
    return (
        "note",
        "none; models run on the CPU, which suits the bundled ones (install torch for your accelerator otherwise)",
    )


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    state = "ok" if free > 4 else "note"
    return state, f"{free:.1f} GiB free, {os.cpu_count()} CPUs (a worker with a bundled model takes about 0.7 GiB)"


def _disk(store: str) -> Finding:
    if "://" in store:
        return "note", "the store is in a bucket"
    root = Path(store).absolute()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    return ("ok" if free > 2 else "fails"), f"{free:.1f} GiB free at {place}" + ("" if free > 2 else "; free some")


def _model(models: Sequence[ModelRef]) -> Finding:
    from transformers.utils import logging

    from editing.model.bundled import bundled_names
    from editing.model.loading import load

    logging.disable_progress_bar()
    if not bundled_names():
        return "fails", "no bundled models; install the package from a complete checkout"
    lm = load(bundled_names()[0])
    found = f"{', '.join(bundled_names())}; {lm.name} loads with {lm.n_layers} layers"
    return "ok", "; ".join([found, *(f"{model.name} is at {model.folder}" for model in models)])


def _store(store: str) -> Finding:
    from storage.files import check_exclusive
    from storage.locations import is_store, open_files
    from storage.store import Store

    is_there = is_store(store)
    if is_there or "://" in store:  # a bucket is there before its first store, a directory is not
        check_exclusive(open_files(store))
    if not is_there:
        return "note", f"none at {store} yet; `palimpsest run` makes it"
    opened = Store(store)
    opened.check(opened.run_ids())
    return "ok", f"{opened.location}: {len(opened.run_ids())} runs and preparations, all committed files are whole"


def _hub() -> Finding:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "note", f"offline (HF_HUB_OFFLINE); only what is in {constants.HF_HUB_CACHE}"
    if get_token() is None:
        return "note", "no token: gated models need one; accept a model's licence on its page, then: hf auth login"
    return "ok", f"a token is set; files are kept in {constants.HF_HUB_CACHE}"


def _ray(store: str, placement: Placement, models: Sequence[ModelRef]) -> Finding:
    with cluster(placement):
        nodes = living_nodes()
        placer = Placer(store, placement, models)
        workers = placer.capacity()  # asks the nodes for the models
        told = on_each_node([node.node_id for node in nodes], describe, store)
        deadline = time.monotonic() + _FETCH_S
        while placer.preparing() and time.monotonic() < deadline:
            time.sleep(0.2)
            workers = placer.capacity()
    found = f"{len(nodes)} nodes, {workers} workers: {'; '.join(map(str, nodes))}"
    mine = describe(store)
    wrong = [
        f"{node.address} has {name} {has[name]}, here it is {value}"
        for node, has in zip(nodes, told, strict=True)
        for name, value in mine.items()
        if has and has[name] != value
    ]
    silent = [node.address for node, has in zip(nodes, told, strict=True) if has is None]
    if silent:
        return "fails", f"{found}; no answer from {', '.join(silent)}: see the node's own Ray logs"
    if wrong:
        return "fails", f"{found}; {'; '.join(wrong)}; install the same versions, and let each node see the store"
    if left_out := placer.problems():
        return "note", f"{found}; left out: {left_out} (docs/cluster.md)"
    if placer.preparing():
        return "note", f"{found}; other nodes are still fetching the models, and are used as soon as they have them"
    if placement.ray != "local" and os.environ.get("RAY_AUTH_MODE") != "token":
        return "note", f"{found}; without RAY_AUTH_MODE=token whoever reaches the head can run code (docs/cluster.md)"
    return "ok", found


def _prefect() -> Finding:
    from prefect import flow
    from prefect.settings import get_current_settings

    @flow(name="doctor")
    def answer() -> int:
        return 42

    if answer() != 42:
        return "fails", "a flow gave a wrong answer"
    settings = get_current_settings()
    if settings.api.url is None:
        return "ok", "a flow runs, with a temporary server"
    host = urlsplit(str(settings.api.url)).hostname
    if host not in _LOOPBACK and settings.api.auth_string is None:
        return "note", (
            f"a flow runs, with the server on {host}; whoever reaches it can have code run: set "
            "PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here (docs/cluster.md)"
        )
    return "ok", f"a flow runs, with the server at {settings.api.url}"


def _schedules() -> Finding:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        return "note", "none without a server that stays; docs/cluster.md tells how to start one"
    with get_client(sync_client=True) as client:
        pools = client.read_work_pools()
        served = [each.name for each in client.read_deployments() if each.work_pool_name is None]
        online = {
            pool.name: sum(each.status == WorkerStatus.ONLINE for each in client.read_workers_for_work_pool(pool.name))
            for pool in pools
        }
    idle = [name for name, count in online.items() if not count]
    if idle:
        return "note", f"no worker is online for {', '.join(idle)}; start one: prefect worker start --pool {idle[0]}"
    shown = [f"{name}: {count} workers online" for name, count in online.items()]
    return "ok", ", ".join(shown + [f"served: {', '.join(served)}"] * bool(served)) or "no deployments yet"
