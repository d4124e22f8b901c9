"""The command line.  Heavy libraries are imported inside the commands that need them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.beginning import app as beginning
from flows.commands.findings import app as findings
from flows.commands.results import app as results
from flows.commands.schedules import app as schedules
from flows.commands.store import app as upkeep
from flows.options import DEFAULT_STORE, ResultsOption, SetOption, StoreOption, StrictOption, WideOption, overrides
from flows.waiting import waiting

if TYPE_CHECKING:
    from tasks.driver.plan import Plan

app = typer.Typer(
    help="Edit language models thousands of times and see in SQL what was learnt, what was forgotten and when they broke.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(beginning)
app.add_typer(results)
app.add_typer(findings)
app.add_typer(upkeep)
app.add_typer(schedules)
FileArgument = Annotated[
    Path, typer.Argument(help="An experiment file, or the name of one of `palimpsest list experiments`.")
]
INTERRUPTED = 130
"""The exit code of a command that was asked to end, as shells have it."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"palimpsest {version('palimpsest-editing')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Take what stands before a command."""


def main() -> None:
    """Entry point: run a command; known errors become one message and exit code 2."""
    from storage.errors import StorageError

    try:
        app(standalone_mode=True)
    except Exception as error:
        if not isinstance(error, StorageError) and not _is_known(error):
            raise
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(2)


def _is_known(error: Exception) -> bool:
    # Only classes whose modules are loaded can have been raised, so nothing is imported here.
    names = ("flows.spec_values:SpecError", "tasks.errors:TaskError", "editing.errors:EditingError")
    for name in names:
        module, _, cls = name.partition(":")
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], cls)):
            return True
    return False


@app.command()
def plan(
    file: FileArgument,
    set_: SetOption = None,
    store: ResultsOption = None,
    strict: StrictOption = False,
    device: Annotated[
        str | None, typer.Option(help="Estimate the cost on one of these: a100, h100, h200, l40s, rtx4090.")
    ] = None,
    weights: Annotated[
        bool, typer.Option(help="Without: models are taken by their config and tokenizer, and no weights are fetched.")
    ] = True,
    wide: WideOption = False,
) -> None:
    """Show what an experiment would do: runs, edits, expected time and bytes, and what the store already holds."""
    from flows.costs import costs
    from flows.experiment_file import load_experiment
    from flows.forecast import forecast
    from flows.hollow import without_weights
    from flows.several_models import plan_each, read_each
    from tasks.reports.tables import print_table

    experiment = load_experiment(file, overrides(set_, store))
    with waiting(f"reading the model, facts and questions of {experiment.name}"):
        experiment, hollow = (experiment, []) if weights else without_weights(experiment)
        inputs = read_each(experiment)
        planned = plan_each(inputs)
        rows, notes = forecast(planned)
    print_table([row | {"run": "(named by its weights)"} for row in rows] if hollow else rows, wide=wide)
    for name in hollow:
        typer.echo(f"model {name}: planned by its config.json; its weights are not looked at")
    for note in notes:
        typer.echo(note)
    with waiting("measuring this machine's speed"):
        stages, said = costs(planned, inputs[0].requests, device)
    if stages:
        print_table(stages)
    typer.echo(said)
    _warn(planned, strict)


@app.command()
def run(
    file: FileArgument,
    set_: SetOption = None,
    store: ResultsOption = None,
    strict: StrictOption = False,
    wide: WideOption = False,
) -> None:
    """Run an experiment, or what the store lacks of it; running it again resumes it."""
    import time

    from flows.experiment_file import load_experiment
    from flows.running import completed, finished, planned

    started = time.perf_counter()
    experiment = load_experiment(file, overrides(set_, store))
    with waiting(f"reading the model, facts and questions of {experiment.name}"):
        plan = planned(experiment, strict=strict)
    _warn(plan)
    with waiting(f"looking for what is left to do in {plan.store}"):
        report_path = finished(plan)
    if report_path is None:
        report_path = _run(plan)
        plan = completed(plan)
    _print_summary(plan, wide)
    typer.echo(f"wall time: {time.perf_counter() - started:.0f} s")
    typer.echo(f"report: {report_path}")


def _warn(plan: "Plan", strict: bool = False) -> None:
    """Say what makes a plan's results doubtful.

    Raises:
        SpecError: ``strict``, and there is something.
    """
    from flows.running import refuse_doubtful

    if strict:
        refuse_doubtful(plan)
    for warning in plan.warnings:
        typer.secho(f"warning: {warning}", err=True, fg="yellow")


def _run(plan: "Plan") -> str:
    """Run a plan's flow; return where its report is."""
    from flows.running import run_flow
    from tasks.errors import Stopped

    try:
        state = run_flow(plan)
    except Stopped as stopped:
        typer.secho(str(stopped), err=True, fg="yellow")
        raise typer.Exit(INTERRUPTED) from stopped
    if state.is_cancelled():
        typer.secho(state.message, err=True, fg="yellow")
        raise typer.Exit(INTERRUPTED)
    report_path: str = state.result()
    return report_path


@app.command()
def lint(file: FileArgument, set_: SetOption = None) -> None:
    """Check an experiment's facts: which are refused, which only marked, why, and how they are spread over relations."""
    from flows.experiment_file import load_experiment
    from flows.linted import linted
    from flows.model_axis import of_each_model
    from tasks.reports.tables import print_table

    for experiment in of_each_model(load_experiment(file, overrides(set_))):
        with waiting(f"reading the model and facts of {experiment.name}"):
            tables, said = linted(experiment)
        for rows in filter(None, tables):
            print_table(rows)
        for line in said:
            typer.echo(line)


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(help="editors, models, datasets, benchmarks, views, columns, figures, papers or experiments"),
    ],
) -> None:
    """List what there is."""
    from flows.listing import listing
    from tasks.reports.tables import print_table

    print_table(listing(what))


@app.command()
def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An experiment: also check its model, cluster and store.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = None,
) -> None:
    """Check what works on this machine, and on the nodes of an experiment's cluster, and say how to mend what does not."""
    from flows.experiment_file import load_experiment
    from flows.settings import configure

    experiment = load_experiment(file, overrides(set_)) if file else None
    configure(experiment.store if experiment else store, ray=experiment.compute.ray if experiment else "local")
    from flows.inputs import read_model
    from flows.model_axis import of_each_model
    from flows.plan import placement_of
    from tasks.driver.doctor import examine
    from tasks.reports.tables import print_table

    with waiting("trying what a run needs: Ray, Prefect, the store"):
        if experiment is None:
            rows = examine(store)
        else:
            rows = examine(
                experiment.store,
                placement_of(experiment),
                lambda: [read_model(each).ref for each in of_each_model(experiment)],
            )
    print_table(rows)
    if any(row["state"] == "fails" for row in rows):
        raise typer.Exit(1)


def _print_summary(plan: "Plan", wide: bool) -> None:
    from flows.summary import summary_of
    from tasks.reports.tables import print_table

    with waiting("reading what was scored"):
        summary = summary_of(plan)
    print_table(summary.rows, wide=wide)
    for line in summary.found:
        typer.echo(line)
    for warning in summary.warnings:
        typer.secho(warning, fg="yellow")


if __name__ == "__main__":
    main()
