"""Commands that have experiments run by a schedule.  Heavy libraries are imported inside the commands that need them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import SetOption, overrides

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

app = typer.Typer()
CronOption = Annotated[
    str | None,
    typer.Option(help="When it runs by itself: '0 2 * * *' is every night at two. Only on demand if left out."),
]
TimezoneOption = Annotated[str, typer.Option(help="Of the schedule, as Europe/Paris.")]


@app.command()
def serve(file: Path, cron: CronOption = None, timezone: TimezoneOption = "UTC", set_: SetOption = None) -> None:
    """Wait here, and run an experiment by a schedule or when asked to; each run does only what the store lacks."""
    from prefect import serve as wait

    deployment = _deployment(file, cron, timezone, set_)
    typer.echo(_how_to_ask(deployment.name))
    wait(deployment)


@app.command()
def deploy(
    file: Path,
    pool: Annotated[str, typer.Option(help="Work pool of processes; made unless it is there.")] = "palimpsest",
    cron: CronOption = None,
    timezone: TimezoneOption = "UTC",
    set_: SetOption = None,
) -> None:
    """Register an experiment with the Prefect server, to be run by workers wherever they are; again to change it."""
    deployment = _deployment(file, cron, timezone, set_, pool)
    from flows.deployments import ensure_pool

    made = ensure_pool(pool)
    deployment.apply()
    typer.echo(f"deployed palimpsest/{deployment.name} to work pool {pool}{' (made)' if made else ''}")
    typer.echo(f"a worker that runs it: prefect worker start --pool {pool}")
    typer.echo(_how_to_ask(deployment.name))


def _deployment(
    file: Path, cron: str | None, timezone: str, set_: list[str] | None, pool: str | None = None
) -> "RunnerDeployment":
    from flows.experiment_file import load_experiment
    from flows.settings import VARIABLES

    given = overrides(set_)
    experiment = load_experiment(file, given)
    for name, value in VARIABLES.items():  # before Prefect is imported
        os.environ.setdefault(name, value)
    from flows.deployments import deployment_of, require_server

    found = deployment_of(file, experiment, given, cron=cron, timezone=timezone, pool=pool)
    require_server()
    return found


def _how_to_ask(name: str) -> str:
    return (
        f"to run it now: prefect deployment run palimpsest/{name}\n"
        f"with other values: prefect deployment run palimpsest/{name} -p 'overrides={{\"facts.size\": 50}}'"
    )
