"""Experiments that are nearly good, and what is said of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.experiment_file import load_experiment
from flows.inputs import read_inputs
from flows.plan import plan_experiment
from flows.spec import Experiment
from flows.spec_values import SpecError
from tasks.driver.plan import Plan

GOOD: dict[str, Any] = {
    "name": "t",
    "model": "factworld-tiny",
    "facts": {"name": "factworld", "size": 8},
    "editors": ["memit"],
    "layers": [0],
    "batch_sizes": [2],
}


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"store": str(tmp_path / "store")} | changes))
    return path


def plan_of(experiment: Experiment) -> Plan:
    return plan_experiment(read_inputs(experiment))


def refusal(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        plan_of(load_experiment(path))
    assert not (path.parent / "store").exists(), "refused before any work"
    return str(caught.value)
