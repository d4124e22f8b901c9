"""A paper's experiments run at a scale, its claims judged, and its figures drawn on one page."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.papers import PaperSpec
from flows.spec import SpecError

if TYPE_CHECKING:
    from tasks.driver.plan import Plan
    from tasks.reports.verdicts import Judged

NUMBERS_AT = "full"
"""The scale at which published numbers are judged; at any other only directions are."""


@dataclass(frozen=True)
class Reproduction:
    """What came of a paper's claims, and where its page is."""

    judged: "list[Judged]"
    page: str


def experiment_files(paper: PaperSpec, scale: str, folder: Path) -> list[Path]:
    """Write the experiments of a scale as files, with data relative to the working directory; return them.

    Raises:
        SpecError: The paper has no such scale.
    """
    if scale not in paper.scales:
        raise SpecError(f"--scale {scale!r}: expected one of {sorted(paper.scales)}")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for experiment in paper.scales[scale]:
        files.append(folder / f"{experiment['name']}.yaml")
        files[-1].write_text(yaml.safe_dump(_from_here(experiment), sort_keys=False))
    return files


def reproduce(
    paper: PaperSpec, name: str, item: str | None, *, scale: str, store: str, folder: Path, said: Callable[[str], None]
) -> Reproduction:
    """Run what the store lacks of a paper's experiments, judge its claims, and write its page.

    Args:
        item: One table, figure or claim; all if None.
        folder: Where its experiments are written as files.
        said: Told what is done.

    Raises:
        SpecError: No such scale or item, or an experiment that cannot be run.
        TaskError: One has failed.
    """
    if item is not None and item not in paper.items and item not in paper.claims:
        raise SpecError(
            f"{name} has no table, figure or claim {item!r}; expected one of {[*paper.items, *paper.claims]}"
        )
    plans = list(_run(experiment_files(paper, scale, folder), store, said))
    return judge_and_draw(paper, name, item, scale=scale, plans=plans)


def judge_and_draw(paper: PaperSpec, name: str, item: str | None, *, scale: str, plans: "list[Plan]") -> Reproduction:
    """Judge a paper's claims by what a store holds of its experiments, and write its page."""
    from storage.store import Store
    from tasks.driver.plan import shown_in_report, with_known_layers
    from tasks.reports.paper_page import Shown, write_page
    from tasks.reports.report import others
    from tasks.reports.verdicts import judge

    store = Store(plans[0].store)
    ids = [run_id for plan in plans for run_id in shown_in_report(plan, with_known_layers(plan, store))]
    unseen = others(store, ids)
    judged = judge(store, paper.claims_of(item), with_numbers=scale == NUMBERS_AT, unseen=unseen)
    items = {
        key: each for key, each in paper.items.items() if item in (None, key, *(c.item for c in paper.claims_of(item)))
    }
    shown = [
        Shown(key, each.title, [(p.panel, p.where, p.apart) for p in each.pictures], each.table, each.excused)
        for key, each in items.items()
        if item is None or key == item or any(claim.item == key for claim in paper.claims_of(item))
    ]
    page = write_page(store, name, f"{paper.title} ({paper.source}), {scale} scale", shown, judged, unseen=unseen)
    return Reproduction(judged, page)


def _run(files: list[Path], store: str, said: Callable[[str], None]) -> "Iterator[Plan]":
    """Run what is left of each experiment, in a process of its own; yield the plans."""
    from flows.running import finished, planned
    from tasks.errors import TaskError

    for file in files:
        plan = planned(file, {"store": store})
        if finished(plan) is None:
            said(f"running {file.stem} ({len(plan.runs)} runs)")
            command = [sys.executable, "-m", "flows.cli", "run", str(file), "--set", f"store={plan.store}"]
            if (code := subprocess.run(command).returncode) != 0:
                raise TaskError(
                    f"{file.stem} ended with exit code {code}; what was done is kept: run the same command again"
                )
        yield plan


def _from_here(experiment: dict[str, Any]) -> dict[str, Any]:
    facts = experiment.get("facts", {})
    if not isinstance(facts, dict) or "path" not in facts:
        return experiment
    return experiment | {"facts": facts | {"path": str(Path(facts["path"]).expanduser().absolute())}}
