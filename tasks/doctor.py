"""What works on this machine, what is missing, and how to mend it."""

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_PINNED = {
    "fastapi": ("0.139", "0.151"),
    "sqlalchemy": ("2.0", "2.1"),
    "prefect": ("3.8.8", "3.9"),
    "ray": ("2.60", "2.61"),
}


def examine(store: str) -> list[dict[str, Any]]:
    """Return one row per check: ``ok``, ``note`` (works, with a limit) or ``fails``, with the fix."""
    checks: tuple[tuple[str, Callable[[str], tuple[str, str]]], ...] = (
        ("packages", _packages),
        ("accelerator", _accelerator),
        ("memory", _memory),
        ("disk", _disk),
        ("model", _model),
        ("store", _store),
        ("ray", _ray),
        ("prefect", _prefect),
    )
    rows = []
    for name, check in checks:
        try:
            state, found = check(store)
        except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
            state, found = "fails", f"{type(error).__name__}: {error}"
        rows.append({"check": name, "state": state, "found": found})
    return rows


def _packages(_store: str) -> tuple[str, str]:
    from packaging.version import Version

    wrong = []
    for name, (low, high) in _PINNED.items():
        found = importlib.metadata.version(name)
        if not Version(low) <= Version(found) < Version(high):
            wrong.append(f"{name} {found} (expected >={low},<{high})")
    if wrong:
        return "fails", f"{', '.join(wrong)}; run: pip install -r requirements.lock"
    return "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*_PINNED, "torch", "transformers"))


def _accelerator(_store: str) -> tuple[str, str]:
    import torch

    if torch.accelerator.is_available():
        return "ok", f"{torch.accelerator.device_count()} × {torch.accelerator.current_accelerator()}"
    return (
        "note",
        "none; models run on the CPU, which suits the bundled ones (install torch for your accelerator otherwise)",
    )


def _memory(_store: str) -> tuple[str, str]:
    free = psutil.virtual_memory().available / 2**30
    state = "ok" if free > 4 else "note"
    return state, f"{free:.1f} GiB free, {os.cpu_count()} CPUs (a worker with a bundled model takes about 0.7 GiB)"


def _disk(store: str) -> tuple[str, str]:
    if "://" in store:
        return "note", "the store is in a bucket"
    root = Path(store).absolute()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    return ("ok" if free > 2 else "fails"), f"{free:.1f} GiB free at {place}" + ("" if free > 2 else "; free some")


def _model(_store: str) -> tuple[str, str]:
    from transformers.utils import logging

    from editing.factworld.bundled import bundled_names
    from editing.loading import load

    logging.disable_progress_bar()
    if not bundled_names():
        return "fails", "no bundled models; install the package from a complete checkout"
    lm = load(bundled_names()[0])
    return "ok", f"{', '.join(bundled_names())}; {lm.name} loads with {lm.n_layers} layers"


def _store(store: str) -> tuple[str, str]:
    from storage.store import Store, is_store

    if not is_store(store):
        return "note", f"none at {store} yet; `palimpsest run` makes it"
    opened = Store(store)
    opened.check(opened.run_ids())
    return "ok", f"{opened.location}: {len(opened.run_ids())} runs and preparations, all committed files are whole"


def _ray(_store: str) -> tuple[str, str]:
    import ray

    from tasks.placement import Placement, cluster

    with cluster(Placement()):
        found = ray.cluster_resources()
    return "ok", f"an embedded cluster starts: {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs"


def _prefect(_store: str) -> tuple[str, str]:
    from prefect import flow

    @flow(name="doctor")
    def answer() -> int:
        return 42

    return ("ok", "a flow runs") if answer() == 42 else ("fails", "a flow gave a wrong answer")
