"""The main flow: prepare, locate, edit and score, analyse; each stage a Prefect task."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows.flow_runs import claim, crashing_silent_runs
from flows.waiting import waiting
from tasks.driver import stages
from tasks.driver.plan import Plan
from tasks.driver.prefect_page import show_report
from tasks.driver.session import Session
from tasks.errors import Stopped
from tasks.specs.run import RunSpec

_T = TypeVar("_T")


@flow(name="palimpsest", validate_parameters=False)
def run_experiment(plan: Plan, opened: Callable[[], AbstractContextManager[Session]]) -> str | State[str]:
    """Run what the store does not hold yet, and return where the report is; a run that is asked to end is Cancelled.

    Args:
        opened: Opens the session; a function, because Prefect looks into what else it is given.
    """
    claim(plan.store)
    try:
        with crashing_silent_runs(plan.store), opened() as shared:
            know(shared)
            prepare(shared)
            runs = locate(shared)
            edit_and_score(shared, runs)
            report = analyse(shared, runs)
            shared.ended = "completed"
            return report
    except Stopped as stopped:
        return Cancelled(message=str(stopped))


def stage(name: str) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Return a decorator that makes a stage a Prefect task, which is Cancelled where the run is asked to end.

    Its call raises Stopped then.
    """

    def decorate(body: Callable[..., _T]) -> Callable[..., _T]:
        @wraps(body)
        def run(session: Session, *args: Any) -> Any:
            try:
                return body(session, *args)
            except Stopped as stopped:
                session.stopped = str(stopped)
                return Cancelled(message=session.stopped)

        as_task: Callable[..., Any] = task(name=name, cache_policy=NO_CACHE)(run)

        @wraps(body)
        def call(session: Session, *args: Any) -> _T:
            found: _T = as_task(session, *args)
            if session.stopped is not None:
                raise Stopped(session.stopped)
            return found

        return call

    return decorate


know = stage("know")(stages.know)
prepare = stage("prepare")(stages.prepare)
locate = stage("locate")(stages.locate)
edit_and_score = stage("edit and score")(stages.edit_and_score)


@stage("analyse")
def analyse(shared: Session, runs: tuple[RunSpec, ...]) -> str:
    """Write the report, show it on Prefect's pages, and return where it is; raises where units were given up."""
    with waiting("drawing the report"):
        report = stages.analyse(shared, runs)
    show_report(shared.plan.name, report)
    stages.refuse_failed(shared, report)
    return report.location
