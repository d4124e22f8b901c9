"""Experiments as Prefect deployments: a flow that takes a file, to be served here or run by the workers of a pool.

Light to import: a server of schedules loads nothing that only a run needs.  The command of a run is given, though it is
Prefect's own, because runs without one are ended as a process group: with the first signal an embedded cluster would be gone
before the units in work are finished.
"""

import asyncio
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import get_current_settings
from prefect.states import Cancelled

from flows.experiment_file import load_experiment
from flows.flow_runs import check_server
from flows.settings import VARIABLES
from flows.spec import Experiment
from flows.spec_values import SpecError


@flow(name="palimpsest")
def scheduled(file: str, store: str | None = None, overrides: dict[str, Any] | None = None) -> Any:
    """Run what the store lacks of an experiment, as ``palimpsest run`` does.

    Args:
        file: The experiment, at the same place on every machine that may run it.
        store: Where results go; the file's own store if None.
        overrides: Values by dotted path, as ``{"facts.size": 50}``.
    """
    from flows.running import planned, take_over

    given = dict(overrides or {})
    plan = planned(load_experiment(file, given | ({"store": store} if store else {})))
    from tasks.driver.heartbeat import is_under_way
    from tasks.driver.reaper import watch_descendants

    # Not by Prefect's own limit: its lease ends a run that is under way when the server is started again.
    if driver := is_under_way(plan.store, plan.name):
        return Cancelled(message=f"{driver} is at it; what is missing then is done by the next run")
    watch_descendants()
    take_over(plan.store)
    from flows.experiment import run_experiment
    from tasks.driver.session import session

    return run_experiment.fn(plan, partial(session, plan))


def deployment_of(
    file: Path,
    experiment: Experiment,
    overrides: dict[str, Any],
    *,
    cron: str | None,
    timezone: str,
    pool: str | None = None,
) -> RunnerDeployment:
    """Return an experiment as a deployment named after it; to be served by this process or run by a pool.

    Args:
        pool: A work pool; None where the deployment is served by this process.

    Raises:
        SpecError: No cron expression, one whose time never comes, or an unknown time zone.
    """
    own = {key: value for key, value in overrides.items() if key != "store"}
    found = scheduled.to_deployment(
        experiment.name,
        schedule=_schedule(cron, timezone) if cron else None,
        parameters={"file": str(file.resolve()), "store": experiment.store, "overrides": own},
        description=f"What {experiment.store} lacks of {file.resolve()}",
        tags=["palimpsest"],
        work_pool_name=pool,
        job_variables={"env": dict(VARIABLES), "command": shlex.join([sys.executable, "-m", "prefect.engine"])}
        if pool
        else None,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, found)


def _schedule(cron: str, timezone: str) -> Schedule:
    try:
        if len(cron.split()) != 5 and not cron.startswith("@"):
            raise ValueError(f"it has {len(cron.split())} fields")
        ZoneInfo(timezone)
        asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(1))  # the 31st of February never comes
        return Cron(cron, timezone=timezone)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise SpecError(
            f"--cron {cron!r} --timezone {timezone!r}: {error}; expected five fields, as '0 2 * * *' for every night at "
            "two, and a name as Europe/Paris"
        ) from error


def require_server() -> str:
    """Return the address of the Prefect server.

    Raises:
        SpecError: None is configured, or it does not answer: a temporary one would forget every schedule at its end.
    """
    address = get_current_settings().api.url
    advice = (
        "start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api (docs/cluster.md); "
        "`palimpsest run` needs none"
    )
    if not address:
        raise SpecError(f"schedules need a Prefect server that stays, and PREFECT_API_URL names none; {advice}")
    check_server(address, advice)
    return str(address)


def ensure_pool(name: str) -> bool:
    """Make a work pool whose runs are processes of its workers, unless there is one of that name; return whether it was made.

    Raises:
        SpecError: There is one of another type.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            try:
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
                return True
            except ObjectAlreadyExists:  # a worker that was just started has made it
                found = client.read_work_pool(name)
    if found.type != "process":
        raise SpecError(f"work pool {name!r} is of type {found.type!r}; expected 'process'; choose another name")
    return False
