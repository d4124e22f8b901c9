"""The main flow: prepare, locate, edit and score, analyse."""

from pathlib import Path

from prefect import flow

from tasks.stages import Plan, analyse, edit_and_score, locate, prepare, session


@flow(name="palimpsest", validate_parameters=False)
def run_experiment(plan: Plan) -> Path:
    """Run what the store does not hold yet, and return the report's path."""
    with session(plan) as shared:
        prepare(shared)
        runs = locate(shared)
        edit_and_score(shared, runs)
        return analyse(shared, runs)
