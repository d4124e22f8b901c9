"""What stands before every run, however it was started: the plan, its inputs in the store, and what a killed run has left."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flows.prefect_database import copy_database, keep_database
from flows.settings import configure
from flows.waiting import waiting

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from flows.spec import Experiment
    from tasks.driver.plan import Plan
    from tasks.driver.session import Session


def planned(experiment: "Experiment", *, strict: bool = False) -> "Plan":
    """Return the plan of an experiment, with all that it needs written to its store.

    Raises:
        SpecError: It cannot be run; ``strict``, and something makes its results doubtful.
        TaskError: It asks for something that is not there.
    """
    atexit.register(_silence)
    configure(experiment.store, ray=experiment.compute.ray)  # before Prefect and Ray are imported
    from flows.several_models import plan_each, publish_each, read_each

    inputs = read_each(experiment)
    plan = plan_each(inputs)
    if strict:
        refuse_doubtful(plan)
    publish_each(inputs)
    return plan.changed(completed=partial(planned, experiment, strict=strict)) if plan.unasked else plan


def completed(plan: "Plan") -> "Plan":
    """Return the plan as it is once models have been asked what they know; the plan itself if its runs do not depend on it."""
    return plan.completed() if plan.completed is not None else plan


def refuse_doubtful(plan: "Plan") -> None:
    """Raise SpecError if something makes a plan's results doubtful."""
    from flows.spec_values import SpecError

    if plan.warnings:
        raise SpecError("--strict: " + "; ".join(plan.warnings))


def finished(plan: "Plan") -> str | None:
    """Return where the report of a plan is of which nothing is left to do; None if there is something, or a server to tell.

    Neither a cluster nor a server of Prefect's own is started for it.

    Raises:
        StorageError: The store is of another version, or a committed file is damaged.
    """
    from storage.store import Store
    from tasks.driver import stages
    from tasks.driver.plan import shown_in_report
    from tasks.driver.session import Idle, Session, anything_left, remember_left
    from tasks.reports.made_of import current_report

    if os.environ.get("PREFECT_API_URL") or plan.completed is not None:
        return None
    store = Store(plan.store)
    if anything_left(plan, store):
        return None
    store.check(store.run_ids())
    remember_left(plan, store)
    session = Session(plan, store, Idle())
    stages.prepare(session)
    runs = stages.locate(session)
    stages.edit_and_score(session, runs)
    current = current_report(store, shown_in_report(plan, runs), plan.name)
    return current or stages.analyse(session, runs).location


def run_flow(plan: "Plan") -> "State[Any]":
    """Run the main flow and return its last state; this process leaves nothing behind, however it ends.

    Where no server is named, Prefect's own starts while Ray's cluster and the workers do: each of them waits for others most
    of the time.

    Raises:
        SpecError: The Prefect server that PREFECT_API_URL names does not answer.
        ClusterError: Prefect's server went away meanwhile, so that it cannot be told of the end.  The stages do without it.
    """
    from flows.costs import target_seconds
    from tasks.driver.reaper import watch_descendants

    watch_descendants()
    plan = plan.changed(target_s=target_seconds(plan))
    if os.environ.get("PREFECT_API_URL"):
        take_over(plan.store)
        from tasks.driver.session import session

        return _ended(plan, partial(session, plan))
    with waiting("loading Prefect and Ray"):
        _import_what_both_read()
    with _server_starting() as server, _opened(plan) as shared:
        with waiting("starting Prefect's own server"):
            while not server.done():  # it may never come: a signal to all has ended it, too
                shared.end_if_asked()
                wait([server], timeout=0.2)
            server.result()
        shared.end_if_asked()
        keep_database()
        take_over(plan.store)
        return _ended(plan, lambda: nullcontext(shared))


def take_over(store: str) -> None:
    """Mark runs on the store as Crashed whose driver is gone.

    Raises:
        SpecError: The Prefect server that PREFECT_API_URL names does not answer.
    """
    from prefect.settings import get_current_settings

    from flows.flow_runs import check_server, crash_stale_runs

    if address := get_current_settings().api.url:
        check_server(address, "start it, or unset PREFECT_API_URL: a run needs none, and the store keeps what is done")
    crash_stale_runs(store)


def _import_what_both_read() -> None:
    """Import, in one thread, what Prefect's server and Ray's cluster would import in two.

    A package whose modules import each other, as pydantic.v1's do, is found half made by the second of two threads.
    """
    for name in ("prefect.client.orchestration", "pydantic.v1", "tasks.driver.session"):
        import_module(name)


@contextmanager
def _opened(plan: "Plan") -> "Iterator[Session]":
    """Inside, there is a cluster, and its workers are on their way."""
    from tasks.driver.session import session

    with ExitStack() as stack:
        with waiting("starting Ray's cluster"):
            shared = stack.enter_context(session(plan))
        shared.end_if_asked()
        shared.warm()
        yield shared


@contextmanager
def _server_starting() -> "Iterator[Future[None]]":
    """Inside, Prefect's own server is starting, deaf to a terminal's Ctrl-C, at which it would end before the run does."""

    ready: Future[None] = Future()

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and of what it starts
        try:
            from prefect.client.orchestration import get_client

            copy_database()
            with get_client(sync_client=True):
                ready.set_result(None)
        except BaseException as error:  # noqa: BLE001 - who waits for the server raises it
            ready.set_exception(error)

    threading.Thread(target=start, daemon=True).start()  # a pool's thread would be waited for at the end
    yield ready


def _ended(plan: "Plan", opened: "Callable[[], AbstractContextManager[Session]]") -> "State[Any]":
    import httpx
    from prefect.settings import get_current_settings

    from flows.experiment import run_experiment
    from flows.flow_runs import log_briefly
    from tasks.errors import ClusterError

    log_briefly()
    try:
        return run_experiment(plan, opened, return_state=True)
    except httpx.HTTPError as error:  # what is raised inside the flow is in its state
        raise ClusterError(
            f"Prefect's server at {get_current_settings().api.url or 'an address of its own'} went away ({error}) and does not "
            f"know how the run ended; what was done is in {plan.store}: run the same command again, which does what is left, "
            "if anything is, and shows the summary"
        ) from error


def _silence() -> None:
    # Registered first, so it runs last. Prefect's and Ray's threads keep DuckDB's module alive beyond the interpreter's end,
    # and its bindings would then print a page of "leaked" functions; nothing that follows is of use to anyone.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
