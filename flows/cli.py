"""The command line.  Heavy libraries are imported inside the commands that need them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.findings import app as findings
from flows.commands.schedules import app as schedules
from flows.commands.store import app as upkeep
from flows.options import DEFAULT_STORE, SetOption, StoreOption, StrictOption, check_run, overrides

if TYPE_CHECKING:
    from tasks.driver.plan import Plan

app = typer.Typer(
    help="Edit language models thousands of times and see in SQL what was learnt, what was forgotten and when they broke.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(findings)
app.add_typer(upkeep)
app.add_typer(schedules)
INTERRUPTED = 130
"""The exit code of a command that was asked to end, as shells have it."""


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
    names = ("flows.spec:SpecError", "tasks.errors:TaskError", "editing.errors:EditingError")
    for name in names:
        module, _, cls = name.partition(":")
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], cls)):
            return True
    return False


@app.command()
def plan(
    file: Path,
    set_: SetOption = None,
    strict: StrictOption = False,
    device: Annotated[
        str | None, typer.Option(help="Estimate the cost on one of these: a100, h100, h200, l40s, rtx4090.")
    ] = None,
) -> None:
    """Show what an experiment would do: runs, edits, expected time and bytes, and what the store already holds."""
    from flows.experiment_file import load_experiment
    from flows.forecast import forecast
    from flows.inputs import read_inputs
    from flows.plan import plan_experiment
    from tasks.reports.tables import print_table

    inputs = read_inputs(load_experiment(file, overrides(set_)))
    planned = plan_experiment(inputs)
    rows, notes, are_timed = forecast(planned)
    print_table(rows)
    for note in notes:
        typer.echo(note)
    if device is not None or not are_timed:
        from flows.costs import costs

        stages, said = costs(planned, inputs.requests, device)
        print_table(stages)
        typer.echo(said)
    _warn(planned, strict)


@app.command()
def run(file: Path, set_: SetOption = None, strict: StrictOption = False) -> None:
    """Run an experiment, or what the store lacks of it; running it again resumes it."""
    import time

    from flows.running import finished, planned

    started = time.perf_counter()
    plan = planned(file, overrides(set_), strict=strict)
    _warn(plan)
    report_path = finished(plan)
    if report_path is None:
        report_path = _run(plan)
    _print_summary(plan)
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
def lint(file: Path, set_: SetOption = None) -> None:
    """Check an experiment's facts: which are refused, which only marked, and why."""
    from flows.experiment_file import load_experiment
    from flows.inputs import read_facts, read_model
    from tasks.data.lint import summary
    from tasks.reports.tables import print_table

    experiment = load_experiment(file, overrides(set_))
    facts = read_facts(experiment, read_model(experiment))
    print_table(summary(facts.n_records, facts.findings))
    named = sum(bool(request.subject) for request in facts.requests)
    typer.echo(
        f"facts that can be edited: {len(facts.requests)}; of {named} the subject's last token was decoded and is right"
    )


@app.command()
def status(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show why its units were given up.")] = None,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[bool, typer.Option("--watch", help="Show what is under way now, until it has ended.")] = False,
) -> None:
    """Show each run's progress, and the units that were given up; of one run, with their tracebacks."""
    from flows.status import failure_rows, progress_rows
    from storage.store import Store
    from tasks.reports.tables import print_table

    if run_id is not None:
        check_run(store, run_id)
    if watch:
        from tasks.driver.watching import watch_progress

        watch_progress(store)
    opened = Store(store)
    print_table(progress_rows(opened))
    for row in failure_rows(opened):
        typer.echo(f"{row['run_id']} {row['unit']}: {row['message'].splitlines()[0]}")
        if row["run_id"] == run_id:
            typer.echo(row["traceback"])


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    unit_id: Annotated[str | None, typer.Argument(metavar="[UNIT]")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print what workers said while they did a run's units, in the order of its rounds; or one of them."""
    from storage.sql import query

    check_run(store, run_id)
    sql = f"""
        SELECT unit_id, log FROM commits WHERE run_id = '{run_id}' AND log IS NOT NULL
        ORDER BY first_round, kind, unit_id
    """
    for row in query(store, sql).to_pylist():
        if unit_id in (None, row["unit_id"]):
            typer.echo(f"--- {row['unit_id']} {row['log'].rstrip()}")


@app.command()
def query(
    sql: str,
    store: StoreOption = DEFAULT_STORE,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file instead of the terminal.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Let the statement write, but never below the store.")] = False,
) -> None:
    """Run one SQL statement that reads the store's tables and views, and files of your own."""
    from storage.sql import query as run_query
    from storage.statements import refuse_below
    from storage.store import Store
    from tasks.reports.tables import write_table

    opened = Store(store)
    if out:
        refuse_below(out, str(out), [opened.files.folder.resolve()])
    write_table(run_query(opened, sql, write=write), format, out)


@app.command()
def report(store: StoreOption = DEFAULT_STORE) -> None:
    """Write one self-contained HTML report of the whole store."""
    from storage.store import Store
    from tasks.reports.report import write_report

    typer.echo(f"report: {write_report(Store(store)).location}")


@app.command()
def checkout(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    after: Annotated[int, typer.Option(help="Number of edits; a round boundary.")],
    out: Annotated[Path, typer.Option(help="An empty or new directory.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write the model as it was after some edits, as an ordinary Hugging Face folder."""
    from tasks.workers.checkout import checkout as write_model

    found = write_model(store, run_id, after=after, out=out)
    typer.echo(found)


@app.command("export-moments")
def export_moments(
    out: Annotated[Path, typer.Option(help="Directory for the files.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write the store's second moments as .npz files that ROME, MEMIT and EasyEdit read, each with its recipe."""
    from storage.store import Store
    from tasks.reports.tables import print_table
    from tasks.units.work.moment_artifacts import export_moments as export

    print_table(export(Store(store), out))


@app.command("export-contexts")
def export_contexts(
    out: Annotated[Path, typer.Option(help="Directory for the files.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write the store's context prefixes as files that `contexts_file` takes, and show how each reads."""
    from storage.store import Store
    from tasks.reports.tables import print_table
    from tasks.units.contexts import export_contexts as export

    print_table(export(Store(store), out))


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="editors, models, datasets, benchmarks, views, figures, papers or experiments")
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
    from tasks.driver.doctor import examine
    from tasks.reports.tables import print_table

    if experiment is None:
        rows = examine(store)
    else:
        from flows.inputs import read_model
        from flows.plan import placement_of

        rows = examine(experiment.store, placement_of(experiment), lambda: [read_model(experiment).ref])
    print_table(rows)
    if any(row["state"] == "fails" for row in rows):
        raise typer.Exit(1)


def _print_summary(plan: "Plan") -> None:
    from storage.sql import query_many
    from storage.store import Store
    from tasks.driver.plan import shown_in_report, with_known_layers
    from tasks.reports.report import others
    from tasks.reports.summary import RUNS, SETTINGS, summary_rows
    from tasks.reports.tables import print_table
    from tasks.reports.warnings import DOUBTS, warnings_of

    store = Store(plan.store)
    shown = shown_in_report(plan, with_known_layers(plan, store))
    settings, runs, doubts = query_many(store, [SETTINGS, RUNS, DOUBTS], unseen=others(store, shown))
    print_table(summary_rows(settings.to_pylist(), runs.to_pylist()))
    for warning in warnings_of(doubts.to_pylist()):
        typer.secho(f"warning: {warning}", fg="yellow")


if __name__ == "__main__":
    main()
