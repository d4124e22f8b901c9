"""Commands that say what a store shows.  Heavy libraries are imported inside the commands that need them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import DEFAULT_STORE, StoreOption, run_named

if TYPE_CHECKING:
    from tasks.reports.diagnosis import Step
    from tasks.reports.findings import Contrast

app = typer.Typer()
Row = Mapping[str, Any]
WhereOption = Annotated[str, typer.Option(help="An SQL condition on the columns of the view.")]
_SIDES = ("editor", "batch_size", "layers", "preset", "setting")
"""Columns by whose values one side of a comparison may be named."""


@app.command()
def compare(
    first: Annotated[
        str | None, typer.Argument(metavar="[A]", help="An editor, a batch size, layers (as [1]), or a run.")
    ] = None,
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="What it is compared with.")] = None,
    by: Annotated[
        str | None, typer.Option(help="In what alone settings differ: batch_size, layers, editor ...")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="score, efficacy, paraphrase, neighborhood, forgotten, benchmark_accuracy ...")
    ] = None,
    scored: Annotated[str, typer.Option(help="own: right after each round; final: on the final model.")] = "final",
    where: WhereOption = "true",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Say which settings differ by more than noise, over the same facts; of A and B, or of all that the store holds."""
    from storage.sql import query_many
    from tasks.reports.findings import COMPARISONS, contrasts, differs_only_in, names_of, ranking_rows, simplest
    from tasks.reports.summary import RUNS, SETTINGS
    from tasks.reports.tables import print_table

    _check(first, second, by, metric, scored)
    settings, runs, rows = (
        table.to_pylist()
        for table in query_many(store, [SETTINGS, RUNS, f"{COMPARISONS} WHERE scored = '{scored}' AND ({where})"])
    )
    kept = [row for row in rows if (by is None or differs_only_in(row, by)) and metric in (None, row["metric"])]
    if first is not None and second is not None:
        first, second = (_as_layers(name) if by == "layers" else name for name in (first, second))
        _check_names((first, second), rows, runs)
        kept = list(filter(None, (_turned(row, first, second, runs) for row in kept)))
    elif by is None:
        kept = simplest(kept)
    names = names_of(settings)
    if rows and not kept:
        others = sorted({dimension for row in rows for dimension in row["differs_in"]})
        typer.echo(
            f"no two settings differ as asked; those that are compared differ in {', '.join(others)}: leave --by and --metric "
            "out, or name two settings"
        )
        return
    _print_contrasts(contrasts(kept, names), metric, scored, are_named=first is not None)
    if kept and first is None and by is None:
        typer.echo(f"\nBy {metric or 'score'}; settings that share a letter cannot be told apart:")
        print_table(ranking_rows(settings, rows, metric or "score", scored))


def _check(first: str | None, second: str | None, by: str | None, metric: str | None, scored: str) -> None:
    from flows.spec_values import SpecError
    from tasks.reports.findings import DIMENSIONS, METRICS

    if (first is None) != (second is None):
        raise SpecError("compare takes two things, as `compare memit emmet`, or none")
    for name, given, known in (
        ("--by", by, DIMENSIONS),
        ("--metric", metric, METRICS),
        ("--scored", scored, ("own", "final")),
    ):
        if given is not None and given not in known:
            raise SpecError(f"{name} {given!r}: expected one of {list(known)}")


def _check_names(given: Sequence[str], rows: Sequence[Row], runs: Sequence[Row]) -> None:
    from flows.spec_values import SpecError

    for name in given:
        if rows and not any(_is_named(row, side, name, runs) for row in rows for side in ("", "other_")):
            known = sorted({str(row[f"{side}editor"]) for row in rows for side in ("", "other_")})
            raise SpecError(
                f"{name!r} names no setting that is compared with another; expected one of {known}, a batch size, layers "
                "(as [1], or 0,1,2), a preset, or a run"
            )


def _turned(row: Row, first: str, second: str, runs: Sequence[Row]) -> Row | None:
    """Return a comparison of A with B, whichever of them the view names first; None if it is of others."""
    if _is_named(row, "", first, runs) and _is_named(row, "other_", second, runs):
        return row
    if not (_is_named(row, "", second, runs) and _is_named(row, "other_", first, runs)):
        return None
    swapped = {name: row[f"other_{name}"] for name in ("setting", "mean", *_SIDES)}
    swapped |= {f"other_{name}": row[name] for name in swapped}
    return {**row, **swapped, "difference": -row["difference"], "low": -row["high"], "high": -row["low"]}


def _as_layers(name: str) -> str:
    """Return what layers are called in a comparison by layers, where a number is no batch size."""
    return f"[{name}]" if name.isdecimal() else name


def _is_named(row: Row, side: str, name: str, runs: Sequence[Row]) -> bool:
    own = {str(row[f"{side}{column}"]) for column in _SIDES} | {f"b{row[f'{side}batch_size']}"}
    own |= {",".join(map(str, row[f"{side}layers"]))} if len(row[f"{side}layers"]) > 1 else set()  # 1 is a batch size
    return name in own or any(_is_run(run["run_id"], name) and run["setting"] == row[f"{side}setting"] for run in runs)


def _is_run(run_id: str, name: str) -> bool:
    """Return whether a name is a run's, or begins it up to some letters of its digest."""
    return run_id == name or run_id.startswith(f"{name}-") or (name.count("-") >= 2 and run_id.startswith(name))


def _print_contrasts(found: "Sequence[Contrast]", metric: str | None, scored: str, *, are_named: bool) -> None:
    from tasks.reports.findings import answers
    from tasks.reports.tables import print_table

    if not found:
        typer.echo(
            "nothing to compare: no two settings of one model, data set and mode have edited the same facts, after equally "
            'many edits (`palimpsest query "FROM setting_summary"` lists all)'
        )
        return
    for each in [metric] if metric else ["forgotten", "score", "benchmark_accuracy"]:
        for question, said in [] if are_named else answers(found, each, scored):
            typer.echo(f"{question}\n" + "\n".join(f"  {line}" for line in said))
    if are_named:
        typer.echo("\n".join(each.sentence() for each in found))
    typer.echo(f"\nMore than noise: {sum(each.is_told for each in found)} of {len(found)} comparisons.")
    print_table([_row(each) for each in found])


def _row(each: "Contrast") -> dict[str, Any]:
    row = each.row
    return {
        "metric": row["metric"],
        "A": each.name,
        "B": each.other_name,
        "A's": row["mean"],
        "B's": row["other_mean"],
        "difference": row["difference"],
        "95 %": f"{row['low']:.3f} to {row['high']:.3f}",
        "pairs": row["n_pairs"],
        "p": row["p"],
        "Holm": each.p_holm,
        "verdict": "not told apart" if not each.is_told else f"{each.higher} is higher",
    }


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    fact: Annotated[str | None, typer.Argument(metavar="[FACT]", help="A fact's id, or words of its prompt.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show what a run's edits did to what the model says: before, right after, at checkpoints, and on the final model."""
    from storage.store import Store
    from tasks.reports.single_facts import fact_lines

    run_id = run_named(store, run_id)
    for line in fact_lines(Store(store), run_id, fact):
        typer.echo(line)


@app.command()
def diagnose(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    start: Annotated[int | None, typer.Option("--from", help="Edits at a checkpoint before the fall.")] = None,
    stop: Annotated[int | None, typer.Option("--to", help="Edits at a checkpoint after it.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also edit all later rounds anew, without that edit.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Find the edit after which a run's model broke, and say what it does alone, as a first edit, and left out."""
    from tasks.workers.bisection import diagnose as bisect

    run_id = run_named(store, run_id)
    typer.echo(f"{'stage':10} {'after edits':>11} {'retention':>9} {'neighborhood':>12} {'update norm':>11}  fact")
    found = bisect(store, run_id, start=start, stop=stop, again=again, told=_print_step)
    typer.echo(f"\n{found.text}")


def _print_step(step: "Step") -> None:
    from tasks.reports.tables import format_cell

    shares = (format_cell(step.retention), format_cell(step.neighborhood), format_cell(step.update_norm))
    typer.echo(
        f"{step.stage:10} {step.after_edits:11} {shares[0]:>9} {shares[1]:>12} {shares[2]:>11}  {step.fact_id or ''}"
    )


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="A figure of `palimpsest list figures`.")],
    out: Annotated[Path, typer.Option(help="A file that ends on .svg, .pdf, .png, .html, .csv or .json (Vega-Lite).")],
    where: WhereOption = "true",
    apart: Annotated[
        bool, typer.Option("--apart", help="A line for each sample and seed, in place of their mean.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Draw one figure, or write the rows that it shows."""
    from tasks.reports.pictures import draw

    typer.echo(draw(store, name, out, where=where, apart=apart))


@app.command()
def reproduce(
    what: Annotated[
        str, typer.Argument(metavar="PAPER[.ITEM]", help="As forgetting, or forgetting.fig-4; list papers.")
    ],
    scale: Annotated[str, typer.Option(help="A scale of the paper's file: full needs GPUs, small minutes.")] = "small",
    store: Annotated[str | None, typer.Option(help="Where results go; results/PAPER-SCALE unless given.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of benchmarks' published files (NAME or */NAME); else they come from the hub."),
    ] = None,
) -> None:
    """Run a paper's experiments, say of each of its claims whether it holds, and draw its figures on one page."""
    from flows.papers import load_paper
    from flows.reproduction import reproduce as run_paper
    from tasks.reports.tables import print_table

    name, _, item = (what, "", "") if what.endswith(".yaml") else what.partition(".")
    label = Path(name).stem
    place = store or f"results/{label}-{scale}"
    paper, folder = load_paper(name), Path("results", "papers", label)
    found = run_paper(paper, label, item or None, scale=scale, store=place, folder=folder, said=typer.echo, data=data)
    print_table([
        {"of": each.claim.item, "the paper says": each.claim.says, "verdict": each.verdict, "found (95 %)": each.found or "–"}
        for each in found.judged
    ])  # fmt: skip
    typer.echo(f"page: {found.page}")
