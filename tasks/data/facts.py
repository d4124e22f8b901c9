"""Data sets of facts: generated, from a local file, or from the hub at a commit; read, checked, kept in the store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from editing.factworld.world import World
from editing.measure.scores import PROBE_KINDS, probes_of
from editing.records import columns_unused
from editing.requests import EditRequest, facts_with_variants
from storage.commits import CommitInfo
from storage.digests import digest_of
from storage.store import Store
from tasks.data import shipped_facts
from tasks.data.layouts import Facts, Hub, hub_records, layout_names, read_layout, requests_of
from tasks.data.lint import Finding, lint_requests
from tasks.data.record_files import read_records
from tasks.data.text_files import open_text
from tasks.errors import InputError, NothingToEdit

_ADDED = ("neighborhood_answers", "question_prompts", "completion_prompts", "generation_prompts", "origins")
"""Fields that stand in a digest only where a request has them."""


def dataset_titles() -> dict[str, str]:
    """Return what data sets there are."""
    own = {"factworld": "generated facts that the bundled models know", **shipped_facts.TITLES}
    return own | {name: read_layout(name).title for name in layout_names()}


def load_facts(
    name: str,
    *,
    path: str | None = None,
    hub: str | None = None,
    revision: str | None = None,
    split: str | None = None,
    completions: str | None = None,
    model: str = "",
) -> Facts:
    """Return a data set's facts in its own order, without those that its lint refuses.

    Args:
        name: ``factworld``, a data set that ships, a layout of this package, or the path of a layout of one's own.
        completions: A JSON list of ``{question, text_completion_prompt}``: facts asked by questions, as beginnings of
            sentences.

    Raises:
        InputError: Unknown name, missing or unreadable file, no record that can be edited, or a hub that does not answer.
    """
    if name == "factworld":
        requests = world_for(model).requests()
        return Facts(requests, [], len(requests))
    if name in shipped_facts.TITLES:
        requests = shipped_facts.requests(name)
        return without_refused(Facts(requests, [], len(requests)), lint_requests(requests))
    layout = read_layout(name)
    records = read_records(Path(path)) if path else hub_records(_hub(name, layout.hub, hub, revision, split))
    try:
        found = requests_of(layout, records, _completions(completions) if completions else None)
        return without_refused(found, lint_requests(found.requests))
    except NothingToEdit as error:
        raise InputError(f"{path or 'the hub data set'} read as {name}: {error}") from error


def unused_columns(path: Path) -> list[str]:
    """Return the columns of a file of one's own facts that nothing looks at.

    Raises:
        InputError: It cannot be read.
    """
    return columns_unused(read_records(path))


def check_dataset(name: str, *, path: str | None, hub: str | None) -> None:
    """Refuse a data set that nothing has, or that says not where its records are.

    Raises:
        InputError: Says what there is.
    """
    if (
        name not in ("factworld", *shipped_facts.TITLES)
        and read_layout(name).hub is None
        and path is None
        and hub is None
    ):
        raise InputError(
            f"{name!r} says how records are read and not where they are; give path: (a local file), or hub: and revision:"
        )


def without_refused(facts: Facts, findings: Sequence[Finding]) -> Facts:
    """Return the facts with what was found, and without the requests that it refuses.

    Raises:
        NothingToEdit: Nothing is left.
    """
    refused = {finding.fact_id for finding in findings if finding.refused}
    kept = [request for request in facts.requests if request.request_id not in refused]
    if not kept:
        raise NothingToEdit(
            f"all {len(facts.requests)} facts are refused; the first, {findings[0].fact_id}: {findings[0].detail}; mend them, "
            "or give others"
        )
    return Facts(kept, [*facts.findings, *findings], facts.n_records)


def _hub(name: str, pinned: Hub | None, hub: str | None, revision: str | None, split: str | None) -> Hub:
    if hub is None and pinned is not None:
        changes = {key: value for key, value in {"revision": revision, "split": split}.items() if value is not None}
        return pinned.model_copy(update=changes)
    if not hub or not revision:
        raise InputError(
            f"facts of {name} need path: (a local file), or hub: and revision: (a commit of the hub data set); found "
            f"hub {hub!r}, revision {revision!r}"
        )
    return Hub(id=hub, revision=revision, split=split or "train")


def _completions(path: str) -> dict[str, str]:
    expected = "expected a JSON list of records with the texts question and text_completion_prompt"
    try:
        rows = json.loads(open_text(Path(path)))
    except ValueError as error:
        raise InputError(f"file {path} is not JSON ({error}); {expected}") from error
    if not isinstance(rows, list):
        raise InputError(f"file {path} holds {type(rows).__name__}; {expected}")
    found: dict[str, str] = {}
    for number, row in enumerate(rows):
        question, beginning = (
            row.get(key) if isinstance(row, dict) else None for key in ("question", "text_completion_prompt")
        )
        if not isinstance(question, str) or not isinstance(beginning, str) or not question or not beginning:
            raise InputError(f"file {path}, record {number}: found {str(row)[:120]}; {expected}")
        found[question] = beginning
    return found


def world_for(model: str) -> World:
    """Return the world that a bundled model knows; the default world for any other model."""
    return World(n_known=300) if Path(model).name == "factworld-tiny" else World()


def facts_digest(requests: Sequence[EditRequest]) -> str:
    """Return the digest of a data set's content."""
    return digest_of([_content(request) for request in requests])


def _content(request: EditRequest) -> dict[str, Any]:
    found = asdict(request)
    return {name: value for name, value in found.items() if value or name not in _ADDED}


@cache
def world_training_digest(model: str, *, unknown: bool) -> str:
    """Return the digest of the facts that a bundled model's world keeps for training hyper-networks."""
    return facts_digest(world_for(model).training_requests(unknown=unknown))


@cache
def n_world_training_facts(model: str, *, unknown: bool) -> int:
    """Return how many facts a bundled model's world keeps for training, the answers of one counted once."""
    return len(facts_with_variants(world_for(model).training_requests(unknown=unknown)))


def publish_facts(store: Store, facts: Facts) -> str:
    """Write the tables ``facts``, ``probes`` and ``lint`` of a data set, once; return their run id."""
    run_id = f"facts-{facts_digest(facts.requests)}"
    if not store.is_committed(run_id, "facts"):
        tables: dict[str, list[dict[str, Any]]] = {
            "facts": [_fact_row(position, request) for position, request in enumerate(facts.requests)],
            "probes": [row for request in facts.requests for row in _prompt_rows(request)],
            "lint": [finding._asdict() for finding in facts.findings],
        }
        store.commit(run_id, "facts", tables, CommitInfo(kind="facts", spec={"n_records": facts.n_records}))
    return run_id


def read_facts(store: Store, run_id: str) -> list[EditRequest]:
    """Return the requests that :func:`publish_facts` wrote, in their order."""
    commit = store.read_commit(run_id, "facts")
    if commit is None:
        raise InputError(f"the store {store.location} has no facts {run_id}; run the experiment again to write them")
    prompts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in store.rows(commit, "probes"):
        prompts.setdefault((row["fact_id"], row["kind"]), []).append(row)
    rows = sorted(store.rows(commit, "facts"), key=lambda row: int(row["position"]))
    return [_request(row, {kind: prompts.get((row["fact_id"], kind), []) for kind in _KINDS}) for row in rows]


_KINDS = (*PROBE_KINDS, "generation")
"""Of a fact's prompts; those for generation are no probes."""


def _request(row: Mapping[str, Any], prompts: Mapping[str, Sequence[Mapping[str, Any]]]) -> EditRequest:
    texts = {f"{kind}_prompts": tuple(p["prompt"] for p in mine) for kind, mine in prompts.items() if kind != "rewrite"}
    true = row["target_true"] or ""
    answers = tuple(p["target_true"] for p in prompts["neighborhood"])
    origins = {
        kind: tuple(p["origin"] for p in mine) for kind, mine in prompts.items() if any(p["origin"] for p in mine)
    }
    return EditRequest(
        request_id=row["fact_id"],
        template=row["template"],
        subject=row["subject"],
        target_new=row["target_new"],
        target_true=true,
        relation=row["relation"],
        neighborhood_answers=answers if any(answer != true for answer in answers) else (),
        origins=origins,
        **texts,
    )


def _prompt_rows(request: EditRequest) -> list[dict[str, Any]]:
    """Return a fact's prompts as rows: its probes, and the beginnings for free texts."""
    rows: list[dict[str, Any]] = [
        {
            "kind": probe.kind,
            "index": probe.number,
            "prompt": probe.prompt,
            "target_new": probe.target_new,
            "target_true": probe.target_true or None,
            "probe_id": probe.probe_id,
        }
        for probe in probes_of(request)
    ]
    rows += [
        {"kind": "generation", "index": i, "prompt": prompt, "probe_id": f"{request.request_id}/generation/{i}"}
        for i, prompt in enumerate(request.generation_prompts)
    ]
    origins = {(kind, i): origin for kind, mine in request.origins.items() for i, origin in enumerate(mine)}
    return [{"fact_id": request.request_id, "origin": origins.get((row["kind"], row["index"])), **row} for row in rows]


def _fact_row(position: int, request: EditRequest) -> dict[str, Any]:
    return {
        "fact_id": request.request_id,
        "position": position,
        "relation": request.relation,
        "subject": request.subject,
        "template": request.template,
        "prompt": request.prompt,
        "target_new": request.target_new,
        "target_true": request.target_true or None,
    }
