"""Commands that keep a store in order.  Heavy libraries are imported inside the commands that need them."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from storage.store import Store

app = typer.Typer()
_RUNS = "Ids, their beginnings, or patterns as 'memit-*'."
ExperimentOption = Annotated[str | None, typer.Option(help="All runs of this experiment.")]
SettingOption = Annotated[str | None, typer.Option(help="All runs of this setting (column of setting_summary).")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@app.command()
def compact(store: StoreOption = DEFAULT_STORE) -> None:
    """Put each run's many small files together; nothing that a query gives changes."""
    from storage.compaction import compact as put_together
    from storage.store import Store
    from tasks.driver.progress_bar import progress_bar
    from tasks.driver.stage_progress import StageProgress

    opened = Store(store)
    run_ids = opened.run_ids()
    stage = StageProgress("compact", len(run_ids), len(run_ids))
    with progress_bar(stage) as show:
        changed = 0
        for run_id in run_ids:
            changed += put_together(opened, run_id)
            stage.advance(1)
            show()
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
    if not cleared.files:
        typer.echo(f"nothing that no commit names is older than {grace:g} hours (--grace)")


@app.command()
def rm(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help=_RUNS)] = None,
    experiment: ExperimentOption = None,
    setting: SettingOption = None,
    yes: YesOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove runs with all that they have written; the next `run` of their experiment makes them anew."""
    from storage.cleaning import remove_run
    from storage.store import Store
    from tasks.driver.totals import forget_totals

    opened = Store(store)
    meant = _meant(opened, runs, experiment, setting, yes, "removed")
    begun, n_units, n_forgotten = set(opened.run_ids()), 0, 0
    for run_id in meant:
        forget_totals(opened, run_id)
        n_units += remove_run(opened, run_id) if run_id in begun else 0
        n_forgotten += run_id not in begun
    if len(meant) > n_forgotten:
        what = f"{meant[0]}:" if len(meant) == 1 else f"{_counted(len(meant) - n_forgotten, 'run')} with"
        typer.echo(f"removed {what} {_counted(n_units, 'unit')}, from {store}")
    if n_forgotten:
        typer.echo(f"forgot {_counted(n_forgotten, 'run')}, planned and not begun")
    typer.echo("`palimpsest gc` frees what attempts without a commit have left")


def _meant(
    store: "Store", runs: list[str] | None, experiment: str | None, setting: str | None, yes: bool, done: str
) -> list[str]:
    """Return the runs that are meant; several are shown first, and asked about."""
    from flows.runs_meant import preview, runs_meant
    from tasks.reports.tables import print_table

    if not runs and experiment is None and setting is None:
        raise typer.BadParameter(
            "give runs (ids, their beginnings, or patterns as 'memit-*'), --experiment or --setting"
        )
    found = runs_meant(store, runs or (), experiment=experiment, setting=setting)
    if len(found) > 1 or list(found) != list(runs or ()):
        print_table(preview(store, found))
        _confirm(f"{_counted(len(found), 'run')} of {store.location} would be {done}", yes)
    return found


def _confirm(question: str, yes: bool) -> None:
    """Ask whether to go on; where nobody can be asked, only ``--yes`` does."""
    if yes:
        return
    if not sys.stdin.isatty():
        typer.echo(f"{question}; nothing was done: say --yes")
        raise typer.Exit(1)
    typer.confirm(f"{question}; go on?", abort=True)


def _units(store: "Store", run_id: str, patterns: list[str]) -> list[str]:
    """Return a run's units that are done and that patterns name."""
    from fnmatch import fnmatchcase

    known = sorted(store.commits(run_id))
    return [
        unit
        for unit in known
        if any(fnmatchcase(unit, pattern) for pattern in patterns) and store.is_committed(run_id, unit)
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


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
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help=_RUNS)] = None,
    units: Annotated[
        list[str] | None, typer.Argument(metavar="[UNIT]...", help="Units, or patterns as 'own-*'.")
    ] = None,
    experiment: ExperimentOption = None,
    setting: SettingOption = None,
    yes: YesOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Forget that units of runs are done, so that the next `run` does them again."""
    from storage.cleaning import withdraw as forget
    from storage.errors import StorageError
    from storage.store import Store

    opened = Store(store)
    if run is not None and not units and (experiment is not None or setting is not None):
        units, run = [run], None  # the runs are named by their experiment, so that what is given are units
    if not units:
        raise typer.BadParameter("give units, as 'own-*'; `palimpsest query \"FROM commits\"` lists them")
    meant = _meant(opened, None if run is None else [run], experiment, setting, yes, "looked through for these units")
    wanted = {run_id: _units(opened, run_id, units) for run_id in meant}
    if sum(map(len, wanted.values())) > 1 and len(meant) == 1:
        typer.echo("\n".join(wanted[meant[0]]))
        _confirm(f"{_counted(len(wanted[meant[0]]), 'unit')} of {meant[0]} would be withdrawn", yes)
    withdrawn, others = list[str](), set[str]()
    for run_id, named in wanted.items():
        for unit in named:
            if opened.is_committed(run_id, unit):  # it may have gone with another one
                forgotten = forget(opened, run_id, unit)
                withdrawn.append(f"{unit} of {run_id}")
                others |= {f"{unit_id} of {run_id}" for unit_id in forgotten - set(named)}
    if not withdrawn:
        raise StorageError(
            f"run {' or '.join(map(repr, meant))} has no unit {' or '.join(map(repr, units))} in {store}; `palimpsest query` "
            "lists them: table commits"
        )
    what = withdrawn[0] if len(withdrawn) == 1 else f"{len(withdrawn)} units of {_counted(len(meant), 'run')}"
    typer.echo(f"withdrawn {what}; the next `run` does {'it' if len(withdrawn) == 1 else 'them'} again")
    if others:
        typer.echo(f"and {', '.join(sorted(others))}: their rows lay in the same file, which cannot be read any more")


@app.command()
def merge(other: Annotated[str, typer.Argument(metavar="OTHER")], store: StoreOption = DEFAULT_STORE) -> None:
    """Copy into the store what another one has and it has not; refused where they disagree."""
    from storage.merge import merge as put_together
    from storage.store import Store

    done = put_together(Store(store, create=True), Store(other))
    typer.echo(
        f"copied {done.units} units of {done.runs} runs and preparations, and {done.artifacts} artifacts, from {other} to "
        f"{store}"
    )
    if not done.units and not done.artifacts:
        typer.echo(f"{store} had all of it")
