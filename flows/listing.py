"""What there is, for ``palimpsest list``."""

from pathlib import Path
from typing import Any

from flows.spec_values import SpecError
from tasks.errors import did_you_mean

EXPERIMENTS = Path(__file__).parent / "experiments"
KINDS = ("editors", "models", "datasets", "benchmarks", "views", "columns", "figures", "papers", "experiments")


def listing(what: str) -> list[dict[str, Any]]:
    """Return rows for one kind of thing.

    Raises:
        SpecError: Another kind.
    """
    if what == "editors":
        from tasks.specs.editor_card import editor_rows

        return editor_rows()
    if what == "models":
        from tasks.data.model_files import model_rows

        return model_rows()
    if what == "datasets":
        from tasks.data.facts import dataset_titles

        return [{"data set": name, "what": text} for name, text in dataset_titles().items()]
    if what == "benchmarks":
        from tasks.benchmarks.definition import definition_names, read_definition

        found = [read_definition(name) for name in definition_names()]
        return [{"benchmark": d.name, "what": d.title, "metric": d.metrics[0], "paper": d.paper} for d in found]
    if what == "views":
        from storage.marts import marts, public_marts

        return [{"view": name, "what": marts()[name].about} for name in public_marts()]
    if what == "columns":
        from storage.schema_page import described_columns

        return [{"column": name, "what": text} for name, text in described_columns().items()]
    if what == "figures":
        from tasks.reports.panels import PANELS

        return [{"figure": each.name, "what": each.title} for each in PANELS]
    if what == "papers":
        from flows.papers import load_paper, paper_names

        papers = {name: load_paper(name) for name in paper_names()}
        return [
            {
                "paper": name,
                "title": p.title,
                "source": p.source,
                "scales": ", ".join(p.scales),
                "claims": len(p.claims),
            }
            for name, p in papers.items()
        ]
    if what == "experiments":
        return [{"experiment": path.stem, "file": str(path)} for path in sorted(EXPERIMENTS.glob("*.yaml"))]
    raise SpecError(f"list {what!r}{did_you_mean(what, KINDS)}: expected one of {list(KINDS)}")
