"""The orders in which runs take facts: seeded, or a paper's own list; recorded in the store."""

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from editing.requests import EditRequest
from storage.commits import CommitInfo
from storage.digests import digest_of
from storage.store import Store
from tasks.data.text_files import open_text
from tasks.errors import InputError


@dataclass(frozen=True)
class Order:
    """Positions in a data set, each at most once, of which a run takes the first so many."""

    positions: tuple[int, ...]
    name: str
    """Of its unit in the store: by sample and seed, or by content where these do not determine it."""
    digest: str | None
    """Part of a run's identity; None for a seeded order of all facts, which sample and seed determine."""


def seeded_order(
    requests: Sequence[EditRequest],
    *,
    sample: int,
    seed: int,
    distinct: bool,
    among: Collection[int] | None = None,
) -> Order:
    """Return the seeded permutation of all facts.

    Args:
        among: The places of those that are taken; all unless given.
        distinct: Leave out every fact whose subject stands before in the order (compared without case): a sequential run
            that edits a subject twice counts the first edit as forgotten, although it was asked for.
    """
    positions = list(range(len(requests)))
    random.Random(f"sample-{seed}-{sample}").shuffle(positions)
    taken = positions if among is None else [place for place in positions if place in among]
    kept = _of_new_subjects(requests, taken) if distinct else taken
    digest = _digest(requests, kept) if len(kept) < len(positions) else None
    return Order(tuple(kept), f"order-{digest or f'{sample}-{seed}'}", digest)


def listed_order(
    requests: Sequence[EditRequest],
    path: Path,
    *,
    sample: int,
    distinct: bool,
    among: Collection[int] | None = None,
) -> Order:
    """Return the order of a file: a JSON list of fact ids, or one such list per sample.

    Args:
        among: The places of those that are taken; all unless given.

    Raises:
        InputError: No such list, an id that is not in the data set or stands twice, or a subject that does.
    """
    try:
        found = json.loads(open_text(path))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({error}); expected a list of fact ids, or one list per sample"
        ) from error
    lists = found if isinstance(found, list) and found and isinstance(found[0], list) else [found]
    if not all(isinstance(one, list) and one for one in lists) or sample >= len(lists):
        raise InputError(f"{path} holds {len(lists)} lists of fact ids; expected sample {sample} among them")
    place = {request.request_id: position for position, request in enumerate(requests)}
    unknown = [(number, ident) for number, ident in enumerate(map(str, lists[sample])) if ident not in place]
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} ids of sample {sample} are not in the data set, or its lint refuses them (the first is "
            f"number {unknown[0][0]}, {unknown[0][1]!r}); expected ids such as {requests[0].request_id!r}"
        )
    positions = [place[ident] for ident in map(str, lists[sample])]
    kept = _of_new_subjects(requests, positions) if distinct else list(dict.fromkeys(positions))
    if len(kept) < len(positions):
        left_out = next(i for i in positions if i not in set(kept) or positions.count(i) > 1)
        raise InputError(
            f"{path}: sample {sample} has {len(positions) - len(kept)} facts whose subject it has already (the first is "
            f"{requests[left_out].request_id!r}); drop them, or use mode: independent"
        )
    taken = kept if among is None else [place for place in kept if place in among]
    digest = _digest(requests, taken)
    return Order(tuple(taken), f"order-{digest}", digest)


def disjoint_orders(requests: Sequence[EditRequest], first: Order, *, size: int, samples: int) -> tuple[Order, ...]:
    """Return orders that have no fact in common, each of ``size`` facts but the first, which is the seeded order itself.

    Raises:
        InputError: There are too few facts.
    """
    if len(first.positions) < size * samples:
        raise InputError(
            f"{samples} disjoint samples of {size} facts need {size * samples}; the data set has {len(first.positions)} that "
            "can be edited; lower facts.size or facts.samples"
        )
    parts = [first.positions[start : start + size] for start in range(size, size * samples, size)]
    digests = [_digest(requests, part) for part in parts]
    return (first, *(Order(part, f"order-{digest}", digest) for part, digest in zip(parts, digests, strict=True)))


def check_disjoint(requests: Sequence[EditRequest], samples: Sequence[Sequence[int]], path: str) -> None:
    """Raise InputError if a fact is in two samples of a list."""
    seen: dict[int, int] = {}
    for number, positions in enumerate(samples):
        for position in positions:
            if seen.setdefault(position, number) != number:
                raise InputError(
                    f"{path}: fact {requests[position].request_id!r} is in the samples {seen[position]} and {number}; expected "
                    "none in two of them, or leave facts.disjoint out"
                )


def publish_order(store: Store, facts_run_id: str, requests: Sequence[EditRequest], order: Order) -> None:
    """Write an order to the table ``fact_orders``, once."""
    if not store.is_committed(facts_run_id, order.name):
        rows = [
            {"sample_order": order.name, "place": place, "position": position, "fact_id": requests[position].request_id}
            for place, position in enumerate(order.positions)
        ]
        store.commit(facts_run_id, order.name, {"fact_orders": rows}, CommitInfo(kind="order"))


def read_order(store: Store, facts_run_id: str, name: str) -> list[int]:
    """Return the positions of an order that :func:`publish_order` wrote."""
    commit = store.read_commit(facts_run_id, name)
    if commit is None:
        raise InputError(
            f"the store {store.location} has no {name} of {facts_run_id}; run the experiment again to write it"
        )
    return [
        int(row["position"]) for row in sorted(store.rows(commit, "fact_orders"), key=lambda row: int(row["place"]))
    ]


def _of_new_subjects(requests: Sequence[EditRequest], positions: Sequence[int]) -> list[int]:
    seen, kept = set[str](), []
    for position in positions:
        subject = requests[position].subject.casefold().strip()
        if not subject or subject not in seen:
            kept.append(position)
        seen.add(subject)
    return kept


def _digest(requests: Sequence[EditRequest], positions: Sequence[int]) -> str:
    return digest_of([requests[position].request_id for position in positions])
