"""Commands that keep a store in order.  Heavy libraries are imported inside the commands that need them."""

from typing import Annotated

import typer

from flows.options import DEFAULT_STORE, StoreOption

app = typer.Typer()


@app.command()
def compact(store: StoreOption = DEFAULT_STORE) -> None:
    """Put each run's many small files together; nothing that a query gives changes."""
    from storage.compaction import compact as put_together
    from storage.store import Store
    from tasks.driver.progress_bar import progress_bar

    opened = Store(store)
    run_ids = opened.run_ids()
    with progress_bar("compact", len(run_ids), len(run_ids)) as advance:
        changed = 0
        for run_id in run_ids:
            changed += put_together(opened, run_id)
            advance(1)
    typer.echo(f"{changed} of {len(run_ids)} runs and preparations compacted; `palimpsest gc` frees what they replace")


@app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    grace: Annotated[
        float, typer.Option(help="Hours that a file must have stood; longer than any query or write takes.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be deleted.")] = False,
) -> None:
    """Delete files that nothing names any more: replaced by a compaction, or left by an attempt that never committed."""
    from storage.cleaning import gc as clear
    from storage.store import Store

    cleared = clear(Store(store), grace_s=grace * 3600, dry_run=dry_run)
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {cleared.files} files, {cleared.bytes / 2**20:.1f} MB")


@app.command()
def rm(run_id: Annotated[str, typer.Argument(metavar="RUN")], store: StoreOption = DEFAULT_STORE) -> None:
    """Remove a run with all that it has written; the next `run` of its experiment makes it anew."""
    from storage.cleaning import remove_run
    from storage.store import Store
    from tasks.driver.totals import forget_totals

    opened = Store(store)
    if forget_totals(opened, run_id) and run_id not in opened.run_ids():
        typer.echo(f"forgot {run_id}, which was planned and not begun")
        return
    typer.echo(f"removed {run_id}: {remove_run(opened, run_id)} units")


@app.command()
def cancel(
    experiment: Annotated[str | None, typer.Argument(help="Its name; all that run on the store if left out.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Ask running experiments to end once the units in work are done, wherever they run; `run` goes on with them."""
    from storage.store import Store
    from tasks.driver.stopping import cancel as ask

    ask(Store(store), experiment)
    typer.echo("asked; drivers look every two seconds and finish the units in work")


@app.command()
def withdraw(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    unit_id: Annotated[str, typer.Argument(metavar="UNIT")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Forget that one unit of a run is done, so that the next `run` does it again."""
    from storage.cleaning import withdraw as forget
    from storage.errors import StorageError
    from storage.store import Store

    opened = Store(store)
    if not opened.is_committed(run_id, unit_id):
        raise StorageError(
            f"run {run_id!r} has no unit {unit_id!r} in {store}; `palimpsest query` lists them: table commits"
        )
    others = forget(opened, run_id, unit_id) - {unit_id}
    typer.echo(f"withdrawn {unit_id} of {run_id}")
    if others:
        typer.echo(f"and {', '.join(sorted(others))}: their rows lay in the same file, which cannot be read any more")


@app.command()
def merge(other: Annotated[str, typer.Argument(metavar="OTHER")], store: StoreOption = DEFAULT_STORE) -> None:
    """Copy into the store what another one has and it has not; refused where they disagree."""
    from storage.merge import merge as put_together
    from storage.store import Store

    done = put_together(Store(store, create=True), Store(other))
    typer.echo(f"copied {done.units} units of {done.runs} runs and preparations, and {done.artifacts} artifacts")
