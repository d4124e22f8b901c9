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
