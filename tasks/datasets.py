"""Data sets of facts and texts: bundled, from a local file, or from the hub at a pinned revision."""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from editing.errors import RequestError
from editing.factworld.world import World
from editing.requests import EditRequest, refuse_repeated_subjects
from editing.scores import probes_of
from editing.training import facts_with_variants
from storage.identity import digest_of
from storage.store import CommitInfo, Store
from tasks.errors import InputError

DATASETS: dict[str, str] = {
    "factworld": "generated facts that the bundled models know (options: world, a table of World's parameters)",
    "counterfact": "CounterFact in ROME's JSON layout (path: .json, .jsonl, either .gz; or hub id + revision)",
}


def load_requests(
    name: str, *, path: str | None = None, hub: str | None = None, revision: str | None = None, model: str = ""
) -> list[EditRequest]:
    """Return all requests of a data set, in its own order.

    Raises:
        InputError: Unknown name, missing or unreadable file, or a hub that does not answer.
        RequestError: A record that cannot be edited; names the record.
    """
    if name == "factworld":
        return world_for(model).requests()
    if name != "counterfact":
        raise InputError(f"no data set {name!r}; expected one of {sorted(DATASETS)}")
    records = _read_records(Path(path)) if path else _from_hub(hub, revision)
    return [EditRequest.from_counterfact(record) for record in records]


def world_for(model: str) -> World:
    """Return the world that a bundled model knows; the default world for any other model."""
    return World(n_known=300) if Path(model).name == "factworld-tiny" else World()


def sample_order(n_facts: int, *, sample: int, seed: int) -> list[int]:
    """Return the seeded permutation of all facts of which a run takes a prefix."""
    order = list(range(n_facts))
    random.Random(f"sample-{seed}-{sample}").shuffle(order)
    return order


def facts_digest(requests: Sequence[EditRequest]) -> str:
    """Return the digest of a data set's content."""
    return digest_of([asdict(request) for request in requests])


@cache
def world_training_digest(model: str, *, unknown: bool) -> str:
    """Return the digest of the facts that a bundled model's world keeps for training hyper-networks."""
    return facts_digest(world_for(model).training_requests(unknown=unknown))


@cache
def n_world_training_facts(model: str, *, unknown: bool) -> int:
    """Return how many facts a bundled model's world keeps for training, the answers of one counted once."""
    return len(facts_with_variants(world_for(model).training_requests(unknown=unknown)))


def publish_facts(store: Store, requests: Sequence[EditRequest]) -> str:
    """Write the tables ``facts`` and ``probes`` of a data set, once; return their run id."""
    run_id = f"facts-{facts_digest(requests)}"
    if not store.is_committed(run_id, "facts"):
        facts = [_fact_row(position, request) for position, request in enumerate(requests)]
        probes = [
            {
                "fact_id": probe.request_id,
                "probe_id": probe.probe_id,
                "kind": probe.kind,
                "index": probe.number,
                "prompt": probe.prompt,
                "target_new": probe.target_new,
                "target_true": probe.target_true,
            }
            for request in requests
            for probe in probes_of(request)
        ]
        store.commit(run_id, "facts", {"facts": facts, "probes": probes}, CommitInfo(kind="facts"))
    return run_id


def read_facts(store: Store, run_id: str) -> list[EditRequest]:
    """Return the requests that :func:`publish_facts` wrote, in their order."""
    commit = store.read_commit(run_id, "facts")
    if commit is None:
        raise InputError(f"the store {store.root} has no facts {run_id}; run the experiment again to write them")
    prompts: dict[tuple[str, str], list[str]] = {}
    for row in store.rows(commit, "probes"):
        prompts.setdefault((row["fact_id"], row["kind"]), []).append(row["prompt"])
    return [
        EditRequest(
            request_id=row["fact_id"],
            template=row["template"],
            subject=row["subject"],
            target_new=row["target_new"],
            target_true=row["target_true"],
            relation=row["relation"],
            paraphrase_prompts=tuple(prompts.get((row["fact_id"], "paraphrase"), ())),
            neighborhood_prompts=tuple(prompts.get((row["fact_id"], "neighborhood"), ())),
        )
        for row in sorted(store.rows(commit, "facts"), key=lambda row: int(row["position"]))
    ]


def check_sample(requests: Sequence[EditRequest], *, size: int, mode: str) -> None:
    """Raise if a sample cannot be drawn, or a sequential run would edit one subject twice.

    Raises:
        InputError: The data set has fewer facts than the sample.
        RequestError: Two requests of a sequential run have one subject.
    """
    if size > len(requests):
        raise InputError(f"facts.size is {size}, the data set has {len(requests)} facts; give a smaller size")
    ids = [request.request_id for request in requests]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise RequestError(f"two facts have the id {twice!r}; expected every case_id once; drop one of them")
    if mode == "sequential":
        refuse_repeated_subjects(requests[:size])


def _fact_row(position: int, request: EditRequest) -> Mapping[str, Any]:
    return {
        "fact_id": request.request_id,
        "position": position,
        "relation": request.relation,
        "subject": request.subject,
        "template": request.template,
        "prompt": request.prompt,
        "target_new": request.target_new,
        "target_true": request.target_true,
    }


def open_text(path: Path) -> str:
    if not path.exists():
        raise InputError(
            f"file {path} does not exist; expected a local file; check the path (relative to the YAML file)"
        )
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            return stream.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"file {path} cannot be read ({error}); expected UTF-8 text, or the same gzipped") from error


def _read_records(path: Path) -> list[dict[str, Any]]:
    text = open_text(path)
    lines = ".jsonl" in path.suffixes
    try:
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except ValueError as error:
        kind = "one JSON record per line" if lines else "a JSON list of records"
        raise InputError(f"file {path} is not {kind} ({error}); expected ROME's CounterFact layout") from error
    if not isinstance(found, list) or not found:
        raise InputError(f"file {path} holds no records; expected a non-empty list in ROME's CounterFact layout")
    return found


def _from_hub(hub: str | None, revision: str | None) -> list[dict[str, Any]]:
    if not hub or not revision:
        raise InputError(
            "facts of counterfact need path: (a local file), or hub: and revision: (a commit of the hub data set); found "
            f"hub {hub!r}, revision {revision!r}"
        )
    import datasets

    try:
        return [dict(row) for row in datasets.load_dataset(hub, revision=revision, split="train")]
    except Exception as error:
        raise InputError(
            f"the hub did not give {hub!r} at {revision!r} ({error}); give a local file with path: instead"
        ) from error
