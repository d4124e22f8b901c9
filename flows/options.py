"""Options that several commands share."""

from typing import Annotated, Any

import typer
import yaml

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value of the file: --set facts.size=50. May be repeated.")
]
StoreOption = Annotated[str, typer.Option(help="The results directory, or s3://BUCKET/PREFIX.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse what would only be warned of.")]
DEFAULT_STORE = "results"


def overrides(given: list[str] | None) -> dict[str, Any]:
    """Return what ``--set`` was given, by dotted path.

    Raises:
        BadParameter: An entry without ``=``.
    """
    found = {}
    for entry in given or []:
        key, separator, value = entry.partition("=")
        if not separator:
            raise typer.BadParameter(f"--set {entry}: expected key=value, as facts.size=50")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"--set {entry}: the value is not YAML: {error}") from error
    return found


def check_run(store: str, run_id: str) -> None:
    """Refuse the name of a run that the store does not hold, with those that are called alike."""
    import difflib

    from storage.errors import StorageError
    from storage.store import Store, check_name

    check_name(run_id)
    known = Store(store).run_ids()
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=3, cutoff=0.3) or known[:3]
        raise StorageError(f"no run {run_id!r} in {store}; near it: {near}; `palimpsest status` lists all of them")
