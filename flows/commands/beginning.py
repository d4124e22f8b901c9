"""Commands that begin an experiment: what a file of facts holds, and a first experiment file."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def facts(
    file: Annotated[
        Path, typer.Argument(help="Facts (.csv, .tsv, .json, .jsonl, .parquet), or an experiment (.yaml).")
    ],
    layout: Annotated[
        str, typer.Option(help="How records are read: columns, or one of `palimpsest list datasets`.")
    ] = "columns",
    model: Annotated[str | None, typer.Option(help="Also check what this model's tokenizer makes of them.")] = None,
    first: Annotated[int, typer.Option(help="How many records to show.")] = 5,
) -> None:
    """Show what is understood of a file of facts: first records with their subjects marked, counts, and refusals."""
    from tasks.data.lint import summary
    from tasks.reports.fact_tables import fact_lines, fact_rows
    from tasks.reports.tables import print_table

    found, unused = _read(file, layout, model)
    print_table(fact_rows(found, first))
    if len(found.requests) > first:
        typer.echo(f"... and {len(found.requests) - first} more (--first)")
    typer.echo("")
    for line in fact_lines(found):
        typer.echo(line)
    if unused:
        typer.echo(f"columns that nothing looks at: {', '.join(unused)}")
    if found.findings:
        typer.echo("")
        print_table(summary(found.n_records, found.findings))


def _read(file: Path, layout: str, model: str | None) -> tuple[Any, list[str]]:
    """Return a file's facts, and its columns that are not used."""
    from flows.spec import FactsSpec, ModelSpec
    from tasks.data.facts import load_facts, unused_columns
    from tasks.data.record_files import is_record_file

    if not is_record_file(file.name):
        from flows.experiment_file import load_experiment
        from flows.inputs import read_facts, read_model

        experiment = load_experiment(file)
        return read_facts(experiment, read_model(experiment)), []
    unused = unused_columns(file) if layout == "columns" else []
    if model is None:
        return load_facts(layout, path=str(file)), unused
    from flows.inputs import checked_facts, model_of

    spec, facts_spec = ModelSpec(name=model), FactsSpec(name=layout, path=str(file))
    return checked_facts(facts_spec, model_of(spec)), unused
