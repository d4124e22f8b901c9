"""A run's chain of segments: how it began, and where it ends."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from storage.commits import Commit
from storage.store import Store
from tasks.specs.execution import Compute
from tasks.specs.run import RunSpec
from tasks.specs.stored_run import of_json

SEGMENT = "segment"
"""What a segment's commit is called."""


class Beginning(NamedTuple):
    """What a run's first commit says of how it began; what changes bits stays so to its end."""

    run: RunSpec
    """As it was planned then, with the threads and micro-batches that it took; ``in_step`` names those that began with it."""
    digests: Mapping[str, Any]
    """Of the content of its second moments and its hyper-network, and its context prefixes."""
    device_kind: str


def segment_id(first: int) -> str:
    """Return the name of the segment that starts at a round."""
    return f"{SEGMENT}-{first:06d}"


def has_begun(store: Store, run_id: str) -> bool:
    """Return whether a run's first segment is committed."""
    return store.is_committed(run_id, segment_id(0))


def beginning_of(store: Store, run_id: str) -> Beginning | None:
    """Return how a run of edits began; None if it has not."""
    commit = store.read_commit(run_id, segment_id(0))
    rows = store.rows(commit, "runs") if commit else []
    if not rows:
        return None
    row = rows[0]
    compute = Compute(threads=row["threads"], tokens_per_forward=row["tokens_per_forward"])
    return Beginning(
        run=of_json(row["spec"]).changed(compute=compute),
        digests={
            "moments": row["moments_digest"],
            "network": row["network_digest"],
            "context_texts": row["contexts"],
        },
        device_kind=str(row["device_kind"]),
    )


def segments(store: Store, run_id: str) -> list[Commit]:
    """Return a run's committed segments as a chain: each starts where the one before ended."""
    return chain_of(store, run_id, store.commits(run_id).values())


def chain_of(store: Store, run_id: str, commits: Iterable[Commit]) -> list[Commit]:
    """Return the same, where the run's commits are known already."""
    listed = {commit.first_round: commit for commit in commits if commit.kind == SEGMENT}
    chain: list[Commit] = []
    # By its name, too: what another machine has just committed may not be in this one's listing of an NFS directory yet.
    while (commit := listed.get(end_of(chain)) or store.read_commit(run_id, segment_id(end_of(chain)))) is not None:
        chain.append(commit)
    return chain


def end_of(chain: list[Commit]) -> int:
    """Return how many rounds a chain holds."""
    return (chain[-1].last_round or 0) if chain else 0
