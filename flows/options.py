"""Options that several commands share."""

from typing import Annotated, Any

import typer
import yaml

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value of the file: --set facts.size=50. May be repeated.")
]
StoreOption = Annotated[str, typer.Option(help="The results directory, or s3://BUCKET/PREFIX.")]
ResultsOption = Annotated[
    str | None, typer.Option("--store", help="Where results go, in place of what the file says: as --set store=DIR.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse what would only be warned of.")]
WideOption = Annotated[bool, typer.Option("--wide", help="Every column, however wide the terminal is.")]
StoresOption = Annotated[
    list[str],
    typer.Option(
        "--store", help="The results directory, or s3://BUCKET/PREFIX; several, as a=DIR and b=DIR, are asked together."
    ),
]
DEFAULT_STORE = "results"


def overrides(given: list[str] | None, store: str | None = None) -> dict[str, Any]:
    """Return what ``--set`` was given, by dotted path; and ``--store``, which is short for ``--set store=``.

    Raises:
        BadParameter: An entry without ``=``.
    """
    found: dict[str, Any] = {} if store is None else {"store": store}
    for entry in given or []:
        key, separator, value = entry.partition("=")
        if not separator:
            raise typer.BadParameter(f"--set {entry}: expected key=value, as facts.size=50")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"--set {entry}: the value is not YAML: {error}") from error
    return found


def run_named(store: str, given: str) -> str:
    """Return the run that a name means: its whole id, or any beginning that no other run shares.

    Raises:
        StorageError: The store holds no such run, or several; says which are near.
    """
    import difflib

    from storage.errors import StorageError
    from storage.store import Store, check_name

    check_name(given)
    known = Store(store).run_ids()
    fitting = [given] if given in known else [run_id for run_id in known if run_id.startswith(given)]
    if len(fitting) > 1:
        raise StorageError(f"{given!r} begins {len(fitting)} runs in {store}: {fitting[:5]}; give more letters")
    if not fitting:
        near = difflib.get_close_matches(given, known, n=3, cutoff=0.3) or known[:3]
        raise StorageError(f"no run {given!r} in {store}; near it: {near}; `palimpsest status` lists all of them")
    return fitting[0]
