"""A paper's experiments run at a scale, its claims judged, and its figures drawn on one page."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.experiment_file import load_experiment
from flows.papers import PaperSpec
from flows.spec_values import SpecError

if TYPE_CHECKING:
    from storage.store import Store
    from tasks.driver.plan import Plan
    from tasks.reports.verdicts import Judged

NUMBERS_AT = "full"
"""The scale at which published numbers are judged; at any other only directions are."""


@dataclass(frozen=True)
class Reproduction:
    """What came of a paper's claims, and where its page is."""

    judged: "list[Judged]"
    page: str


def experiment_files(paper: PaperSpec, scale: str, folder: Path, data: Path | None = None) -> list[Path]:
    """Write the experiments of a scale as files, with data relative to the working directory; return them.

    Args:
        data: Where benchmarks' published files are looked for.

    Raises:
        SpecError: The paper has no such scale.
    """
    if not paper.scales.get(scale):
        raise SpecError(
            f"--scale {scale!r}: expected one of {sorted(key for key, each in paper.scales.items() if each)}"
        )
    if nameless := [number for number, each in enumerate(paper.scales[scale], 1) if not each.get("name")]:
        raise SpecError(f"scale {scale}: experiments {nameless} have no name; expected `name: ...` in each")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for experiment in paper.scales[scale]:
        files.append(folder / f"{experiment['name']}.yaml")
        files[-1].write_text(yaml.safe_dump(_from_here(_with_data(experiment, data)), sort_keys=False))
    return files


def reproduce(
    paper: PaperSpec,
    name: str,
    item: str | None,
    *,
    scale: str,
    store: str,
    folder: Path,
    said: Callable[[str], None],
    data: Path | None = None,
) -> Reproduction:
    """Run what the store lacks of a paper's experiments, judge its claims, and write its page.

    Of a summary nothing is run, and all that it holds is judged.

    Args:
        item: One table, figure or claim; all if None.
        folder: Where its experiments are written as files.
        said: Told what is done.
        data: Where benchmarks' published files are looked for; on the hub if None.

    Raises:
        SpecError: No such scale or item, or an experiment that cannot be run.
        TaskError: One has failed.
    """
    if item is not None and item not in paper.items and item not in paper.claims:
        raise SpecError(
            f"{name} has no table, figure or claim {item!r}; expected one of {[*paper.items, *paper.claims]}"
        )
    from storage.locations import is_store
    from storage.store import Store

    files = experiment_files(paper, scale, folder, data)
    if is_store(store) and Store(store).is_summary:
        said(f"{store} is a summary: nothing is run, and all that it holds is judged")
        return judge_and_draw(paper, name, item, scale=scale, store=Store(store), run_ids=None)
    plans = list(_run(paper, files, store, said))
    opened = Store(plans[0].store)
    return judge_and_draw(paper, name, item, scale=scale, store=opened, run_ids=_shown(plans, opened))


def judge_and_draw(
    paper: PaperSpec, name: str, item: str | None, *, scale: str, store: "Store", run_ids: list[str] | None
) -> Reproduction:
    """Judge a paper's claims by what a store holds of some runs, all if None, and write its page."""
    from tasks.reports.paper_page import Shown, write_page
    from tasks.reports.report import others
    from tasks.reports.verdicts import judge

    unseen = others(store, run_ids)
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


def _shown(plans: "list[Plan]", store: "Store") -> list[str]:
    from tasks.driver.plan import shown_in_report, with_known_layers

    return [run_id for plan in plans for run_id in shown_in_report(plan, with_known_layers(plan, store))]


def _run(paper: PaperSpec, files: list[Path], store: str, said: Callable[[str], None]) -> "Iterator[Plan]":
    """Run what is left of each experiment, in a process of its own; yield the plans.

    Raises:
        SpecError: A claim that could not be judged in the end.
    """
    from flows.running import completed, finished, planned
    from tasks.errors import TaskError
    from tasks.reports.verdicts import problems_of

    is_checked = False
    for file in files:
        experiment = load_experiment(file, {"store": store})
        plan = planned(experiment)
        if finished(plan) is None:
            if not is_checked and (problems := problems_of(paper.claims_of(None))):
                raise SpecError("\n".join(problems))
            is_checked = True
            said(f"running {file.stem} ({len(plan.runs)} runs)")
            command = [sys.executable, "-m", "flows.cli", "run", str(file), "--set", f"store={plan.store}"]
            if (code := subprocess.run(command).returncode) != 0:
                raise TaskError(
                    f"{file.stem} ended with exit code {code}; what was done is kept: run the same command again"
                )
            plan = completed(plan)
        yield plan


def _with_data(experiment: dict[str, Any], data: Path | None) -> dict[str, Any]:
    """Return an experiment whose benchmarks read published files of ``data/NAME`` or ``data/*/NAME``, where these are."""
    benchmarks = experiment.get("score", {}).get("benchmarks", [])
    if data is None or not benchmarks:
        return experiment
    placed = []
    for each in benchmarks:
        spec = each if isinstance(each, dict) else {"name": each}
        name = str(spec.get("name"))
        found = next((path for path in (data / name, *sorted(data.glob(f"*/{name}"))) if path.is_dir()), None)
        placed.append(spec if found is None or "path" in spec else spec | {"path": str(found.absolute())})
    return experiment | {"score": experiment["score"] | {"benchmarks": placed}}


def _from_here(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with every path of one's own made absolute: of data, and of a model that begins with a dot."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    facts, model = experiment.get("facts", {}), experiment.get("model", {})
    found = dict(experiment)
    if isinstance(facts, dict):
        found["facts"] = facts | {key: absolute(facts[key]) for key in ("path", "completions") if key in facts}
    name = str(model.get("name")) if isinstance(model, dict) else str(model)
    if name.startswith("."):
        found["model"] = (model if isinstance(model, dict) else {}) | {"name": absolute(name)}
    return found
