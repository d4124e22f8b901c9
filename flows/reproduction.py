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

    Of a summary nothing is run: what it holds of the experiments of this scale, by their names, is judged.

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
    from tasks.reports.verdicts import problems_of

    files = experiment_files(paper, scale, folder, data)
    if problems := problems_of(paper.claims_of(None)):
        raise SpecError("\n".join(problems))
    if is_store(store) and Store(store).is_summary:
        said(f"{store} is a summary: nothing is run")
        opened = Store(store)
        run_ids = _of_experiments(opened, [each["name"] for each in paper.scales[scale]], scale)
        return judge_and_draw(paper, name, item, scale=scale, store=opened, run_ids=run_ids)
    plans = list(_run(files, store, said))
    opened = Store(plans[0].store)
    return judge_and_draw(paper, name, item, scale=scale, store=opened, run_ids=_shown(plans, opened))


def judge_and_draw(
    paper: PaperSpec, name: str, item: str | None, *, scale: str, store: "Store", run_ids: list[str]
) -> Reproduction:
    """Judge a paper's claims by what a store holds of some runs, and write its page."""
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


def _of_experiments(store: "Store", names: list[str], scale: str) -> list[str]:
    """Return the runs that experiments of these names began, and the searches and traces that are there.

    Raises:
        SpecError: There are none of these runs.
    """
    from storage.sql import query

    began = {
        row["run_id"]: row["experiment"] for row in query(store, "SELECT run_id, experiment FROM runs").to_pylist()
    }
    if not set(began.values()) & set(names):
        raise SpecError(
            f"{store.location} holds runs of {sorted(set(began.values()))}; expected some of {names} (--scale {scale})"
        )
    return [run_id for run_id in store.run_ids() if began.get(run_id, names[0]) in names]


def _run(files: list[Path], store: str, said: Callable[[str], None]) -> "Iterator[Plan]":
    """Run what is left of each experiment, in a process of its own; yield the plans."""
    from flows.running import completed, finished, planned
    from tasks.errors import TaskError

    for file in files:
        experiment = load_experiment(file, {"store": store})
        plan = planned(experiment)
        if finished(plan) is None:
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


_PATHS = frozenset({"path", "completions", "order", "file", "shots_file", "contexts_file", "targets", "adapter"})
"""Keys of an experiment whose values are paths; also ``files``, each of whose values is one."""


def _from_here(value: Any, key: str = "", of: str = "") -> Any:
    """Return a part of an experiment with every path of one's own made absolute, from the working directory.

    Args:
        key: Under which it stands.
        of: The key of the table in which that is.
    """
    if isinstance(value, dict):
        return {name: _from_here(each, name, key) for name, each in value.items()}
    if isinstance(value, list):
        return [_from_here(each, key, of) for each in value]
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    is_model = key in ("model", "models") or (key == "name" and of in ("model", "models"))
    is_own = key in _PATHS or of == "files" or path.suffix.lower() in (".yaml", ".gguf")
    is_own = is_own or (key == "facts" and path.suffix != "") or (is_model and (value.startswith(".") or path.is_dir()))
    return str(path.absolute()) if is_own else value
