"""Commands that show what a store holds, and write it out.  Heavy libraries are imported inside the commands that need them."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DEFAULT_STORE, StoreOption, StoresOption, WideOption, run_named

app = typer.Typer()


@app.command()
def status(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show why its units were given up.")] = None,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[bool, typer.Option("--watch", help="Show what is under way now, until it has ended.")] = False,
    wide: WideOption = False,
) -> None:
    """Show each run's progress, and the units that were given up; of one run, with their tracebacks."""
    from flows.status import failure_rows, progress_line, progress_rows
    from storage.store import Store
    from tasks.reports.tables import print_table

    run_id = None if run_id is None else run_named(store, run_id)
    if watch:
        from tasks.driver.watching import watch_progress

        watch_progress(store)
    opened = Store(store)
    rows = [row for row in progress_rows(opened) if run_id in (None, row["run_id"])]
    print_table(rows, wide=wide)
    typer.echo(progress_line(rows))
    for row in (row for row in failure_rows(opened) if run_id in (None, row["run_id"])):
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

    run_id = run_named(store, run_id)
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
    store: StoresOption = [DEFAULT_STORE],  # noqa: B006 - typer copies it
    format: Annotated[
        str | None, typer.Option(help="table, csv, json or parquet; by the end of --out, or table, unless given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file instead of the terminal.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Let the statement write, but never below the store.")] = False,
    wide: WideOption = False,
) -> None:
    """Run one SQL statement that reads the store's tables and views, and files of your own; SHOW TABLES lists them."""
    from storage.several import names_of, query_any
    from storage.statements import refuse_below
    from storage.store import Store
    from tasks.reports.tables import format_of, write_table

    places = names_of(store)
    if out:
        each = [places] if isinstance(places, str) else list(places.values())
        refuse_below(out, str(out), [Store(place).files.folder.resolve() for place in each])
    chosen = format or format_of(out)
    write_table(query_any(places, sql, write=write), chosen, out, wide=wide)


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

    found = write_model(store, run_named(store, run_id), after=after, out=out)
    typer.echo(found)


@app.command("export-moments")
def export_moments(
    out: Annotated[Path, typer.Option(help="Directory for the files.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write the store's second moments where ROME, MEMIT and EasyEdit look for them (as `export --to moments`)."""
    from storage.store import Store
    from tasks.reports.tables import print_table
    from tasks.units.work.interchange import export_moments as export

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


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="hf-dataset, wandb (offline runs), mlflow (DIR/mlflow.db), csv; summary: a store to be queried; "
            "of official code: targets, moments, contexts."
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write results as a data set, runs of Weights & Biases or MLflow, or CSV; or what official code reads; nothing is sent."""
    from storage.errors import StorageError
    from storage.locations import is_store
    from storage.store import Store
    from tasks.reports.exports import export as write
    from tasks.reports.tables import print_table
    from tasks.runs.published import export_summary
    from tasks.units.work.interchange import OFFICIAL

    if is_store(str(out)):
        raise StorageError(f"{out} is a store, and DIR is where the results go; say --store {out}, and another DIR")
    rows = write(Store(store), to, out, {"summary": export_summary, **OFFICIAL})
    print_table(rows)
    typer.echo(f"wrote {out}")
    hints = {
        "hf-dataset": f'from datasets import load_dataset; load_dataset("{out}", "run_summary")',
        "wandb": f"wandb sync {out}/wandb/offline-run-*   (sends them; nothing was sent)",
        "mlflow": f"mlflow ui --backend-store-uri sqlite:///{out.absolute()}/mlflow.db",
    }
    if to in hints:
        typer.echo(hints[to])
