"""Commands that begin an experiment: what a file of facts holds, and a first experiment file."""

import os
import shlex
import sys
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
    from tasks.data.fact_tables import fact_lines, fact_rows
    from tasks.data.lint import summary
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
    from flows.spec_values import SpecError
    from tasks.data.facts import load_facts, unused_columns
    from tasks.data.record_files import SUFFIXES, is_record_file

    if not is_record_file(file.name) and file.suffix not in (".yaml", ".yml", ""):
        raise SpecError(
            f"{file}: facts are in files that end on {', '.join(SUFFIXES)} (or these with .gz), or an experiment in .yaml"
        )
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


@app.command()
def new(
    out: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where it goes; NAME.yaml unless given.")] = None,
    model: Annotated[str | None, typer.Option(help="A bundled model, a Hugging Face folder, or a hub id.")] = None,
    revision: Annotated[str | None, typer.Option(help="The hub model's commit.")] = None,
    facts: Annotated[str | None, typer.Option(help="A file of facts, or factworld.")] = None,
    editors: Annotated[str | None, typer.Option(help="Editors, as memit,rome.")] = None,
    question: Annotated[str | None, typer.Option(help="edit, batch-size, layer, editors or collapse.")] = None,
    store: Annotated[str | None, typer.Option(help="Where results will go.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a first experiment file, commented, with this model's layers and numbers; check it, and say what it costs."""
    from flows.draft import QUESTIONS, Asked, draft
    from flows.experiment_file import load_experiment
    from flows.spec_values import SpecError

    answers = {
        "model": model or _ask("Model: a bundled one, a folder, or a hub id", "factworld-gpt2"),
        "facts": facts or _ask("Facts: a file (.csv, .jsonl ...), or factworld", "factworld"),
        "editors": editors or _ask("Editors", "memit,ft_c"),
        "question": question or _ask(f"Question: {', '.join(QUESTIONS)}", "editors"),
    }
    names = tuple(name.strip() for name in answers["editors"].split(",") if name.strip())
    asked = Asked(
        answers["model"],
        answers["facts"],
        names,
        answers["question"],
        store or f"results/{answers['question']}",
        revision,
    )
    text = draft(asked)
    place = out or Path(f"{answers['question']}.yaml")
    if place.exists() and not force:
        raise SpecError(f"{place} is there already; give another name, or --force to write over it")
    place.write_text(_from(text, asked, place), encoding="utf-8")
    typer.echo(f"wrote {place}")
    load_experiment(place)
    from flows.cli import plan

    plan(place)
    typer.echo(f"to run it: palimpsest run {shlex.quote(str(place))}")


def _ask(question: str, usual: str) -> str:
    """Return what the user answers; where nobody can be asked, what is usual."""
    if not sys.stdin.isatty():
        return usual
    answer: str = typer.prompt(question, default=usual)
    return answer


def _from(text: str, asked: Any, place: Path) -> str:
    """Return a file's text with the path of its facts as that file sees it."""
    facts = Path(asked.facts)
    if not facts.is_file():
        return text
    seen = os.path.relpath(facts.resolve(), place.resolve().parent)
    return text.replace(f"facts: {asked.facts}  #", f"facts: {seen}  #", 1)
