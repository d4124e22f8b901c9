"""The main flow: prepare, locate, edit and score, analyse."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows.flow_runs import claim, crashing_silent_runs
from tasks.driver.plan import Plan
from tasks.driver.session import session
from tasks.driver.stages import analyse, edit_and_score, locate, prepare
from tasks.errors import Stopped


@flow(name="palimpsest", validate_parameters=False)
def run_experiment(plan: Plan) -> str | State[str]:
    """Run what the store does not hold yet, and return where the report is; a run that is asked to end is Cancelled."""
    claim(plan.store)
    try:
        with crashing_silent_runs(plan.store), session(plan) as shared:
            prepare(shared)
            runs = locate(shared)
            edit_and_score(shared, runs)
            return analyse(shared, runs)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
