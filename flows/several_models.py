"""The plan of an experiment with several models: each planned on its own, and all put together."""

from collections.abc import Sequence

from flows.inputs import Inputs, publish_inputs, read_inputs
from flows.model_axis import of_each_model
from flows.plan import plan_experiment
from flows.spec import Experiment
from tasks.driver.plan import Plan


def read_each(experiment: Experiment) -> list[Inputs]:
    """Read the inputs of each model's experiment.

    Raises:
        SpecError: As :func:`flows.inputs.read_inputs` does, of any model.
    """
    return [read_inputs(each) for each in of_each_model(experiment)]


def plan_each(inputs: Sequence[Inputs]) -> Plan:
    """Return one plan of the experiments of several models."""
    plans = [plan_experiment(each) for each in inputs]
    first = plans[0]
    if len(plans) == 1:
        return first
    names = [each.model.name for each in inputs]

    def said(part: str) -> tuple[str, ...]:
        return tuple(f"{name}: {text}" for name, plan in zip(names, plans, strict=True) for text in getattr(plan, part))

    merged = {
        part: tuple(item for plan in plans for item in getattr(plan, part))
        for part in ("runs", "knowledge", "unasked", "contexts", "texts", "moments", "trainings", "searches", "traces")
    }
    return first.changed(**merged, notes=said("notes"), warnings=said("warnings"))


def publish_each(inputs: Sequence[Inputs]) -> None:
    """Write what workers read of each model's experiment to the store."""
    for each in inputs:
        publish_inputs(each)
