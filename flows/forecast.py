"""What an experiment will cost: edits, bytes and time, from the model's shapes and the store's own timings."""

from typing import Any

from flows import lacking
from flows.ridges import notes_on_ridges
from storage.locations import is_store
from storage.sql import query
from storage.store import Store
from tasks.data.model_files import edited_shape
from tasks.driver.plan import Plan, with_known_layers
from tasks.runs.chain import segments
from tasks.specs.editor_card import ledger_floats
from tasks.specs.run import RunSpec
from tasks.units.groups import with_companions
from tasks.units.moments import MomentsJob
from tasks.units.search import LayerSearch


def forecast(plan: Plan) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per run, and notes on the whole."""
    store = Store(plan.store) if is_store(plan.store) else None
    speed = _seconds_per_edit(plan.store) if store else {}
    rows, total, unfinished = [], 0.0, list[RunSpec]()
    runs = with_known_layers(plan, store) if store else plan.runs
    of_several = len(plan.models) > 1
    for run in runs:
        done = sum(((c.last_round or 0) - (c.first_round or 0)) for c in segments(store, run.run_id)) if store else 0
        done = min(done, run.n_rounds)  # the store may hold a longer one
        left = (run.n_rounds - done) * run.batch_size
        kind = run.model.digest, run.editor, run.mode
        seconds = speed.get((*kind, run.batch_size), speed.get((*kind, None)))
        total += (seconds or 0.0) * left
        unfinished += [run] if left else []
        rows.append(
            {
                "run": _name(plan, run),
                **({"model": run.model.name} if of_several else {}),
                "editor": run.editor,
                "layers": ", ".join(map(str, run.layers)) or (run.layers_from.by if run.layers_from else "–"),
                "batch": run.batch_size,
                "sample": run.facts.sample,
                "edits": run.n_rounds * run.batch_size,
                "left over": run.facts.size - run.n_rounds * run.batch_size if run.n_rounds else 0,
                "in store": done * run.batch_size,
                "ledger MB": _ledger_bytes(run) / 2**20,
                "s per edit": seconds,
            }
        )
    notes = [f"store: {plan.store}" + ("" if store else " (will be made)"), *plan.notes]
    if all(row["s per edit"] is not None for row in rows if row["edits"]):
        n_workers = plan.placement.actors or 1  # as many as there is room for are not known here
        together = f", {total / n_workers:.0f} s of {n_workers}" if n_workers > 1 else ""
        notes.append(f"expected editing time: {total:.0f} s of one worker{together}, by edits that the store has timed")
    notes += _before_editing(plan, store)
    groups = sorted(
        {run.execution.in_step for run in with_companions(store, runs, plan.chains_in_step) if run.execution.in_step}
    )
    notes += [f"in step, their targets searched for together: {', '.join(group)}" for group in groups]
    wanted = [job for job in plan.moments if store is None or job.next_units(store)]
    several = len(plan.models) > 1
    notes += [f"model {job.model.name}: {_moments_note(job)}" if several else _moments_note(job) for job in wanted]
    notes += [
        f"hyper-network to train: {job.run_id}, {job.recipe['editor']}, {job.steps} steps of {job.recipe['edits']} edits"
        for job in plan.trainings
    ]
    notes += notes_on_ridges(store, unfinished)
    if any(row["left over"] for row in rows):
        notes.append("only full batches are edited: the column `left over` counts facts that no batch takes")
    return rows, notes


def _before_editing(plan: Plan, store: Store | None) -> list[str]:
    """Say what is left of searches and traces."""
    units = [unit for search in plan.searches for unit in search.units_left(store)]
    searched = sum(unit.n_items for unit in units if isinstance(unit, LayerSearch))
    traced = sum(round(lacking.facts_of_trace(store, trace)) for trace in plan.traces)
    said = [f"{searched} independent edits for the layer search"] if searched else []
    said += [f"{traced} known facts traced"] if traced else []
    return [f"before editing: {', '.join(said)}"] if said else []


def _name(plan: Plan, run: RunSpec) -> str:
    if any(job.model == run.model for job in plan.unasked):
        return "(named once the facts are asked)"
    return run.run_id if run.layers or run.is_unedited else "(named after the search)"


def _moments_note(job: MomentsJob) -> str:
    n_shards, kept = sum(map(len, job.waves)), 8 * edited_shape(job.model)[1] ** 2 * len(job.layers)
    layers = "1 layer" if len(job.layers) == 1 else f"{len(job.layers)} layers"
    note = f"second moments of {layers}: {_size(kept)} in the store"
    if n_shards < 2:
        return note
    most = 0.6 * kept * n_shards  # of a symmetric sum half, in blocks
    until = f"until their {n_shards} shards are merged (less with a larger second_moment.shard_texts)"
    return f"{note}, up to {_size(most)} more {until}"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GB" if n_bytes > 2**28 else f"{n_bytes / 2**20:.1f} MB"


def _ledger_bytes(run: RunSpec) -> float:
    if run.is_unedited:
        return 0.0
    per_layer = ledger_floats(run.editor, run.batch_size, *edited_shape(run.model))
    return 4.0 * run.n_rounds * max(1, len(run.layers)) * per_layer


def _seconds_per_edit(store: str) -> dict[tuple[str, str, str, int | None], float]:
    """Return what edits took, by model, editor, mode (batches from the unedited model may share targets) and batch size."""
    by = "model_digest, editor, mode"
    sql = f"""
        SELECT {by}, batch_size, sum(seconds) / sum(n_items) AS seconds
        FROM timings JOIN runs USING (run_id) WHERE stage = 'segment' GROUP BY GROUPING SETS (({by}, batch_size), ({by}))
    """
    return {
        (row["model_digest"], row["editor"], row["mode"], row["batch_size"]): row["seconds"]
        for row in query(store, sql).to_pylist()
    }
