"""A store whose answers are known: forty facts, edited in ways that were chosen by hand."""

import json
from collections.abc import Callable
from typing import Any

from storage.commits import CommitInfo
from storage.store import Store
from tests.storage.test_settings import answered
from tests.storage.test_views import BASELINE, run_row, score

N, EVERY, FACTS = 40, 20, "facts-1"
KINDS = {"rewrite": 1, "paraphrase": 1, "neighborhood": 2}
Holds = Callable[[int, str], bool]
Kept = Callable[[int, str, int], bool]


def plant(store: Store) -> None:
    """Write the facts, the unedited model, and the runs."""
    _facts(store)
    _baseline(store)
    # Batches of one forget the first ten facts by 20 edits and five more by 40; batches of four the first two; of twenty none.
    lost = {1: {20: range(10), 40: range(15)}, 4: {40: range(2)}, 20: {}}
    for size, by in lost.items():
        _run(
            store,
            f"memit-b{size}-0000000000",
            batch_size=size,
            kept=lambda fact, kind, at, by=by: (
                kind == "neighborhood" or all(fact not in gone for when, gone in by.items() if when <= at)
            ),
            benchmark={0: 180, 20: 150, 40: 100} if size == 1 else None,
            seconds=8.0 if size == 1 else 4.0,
        )
    # Of ROME's layers, 2 is best: only every tenth fact does not take; in layer 0 half of them, and no paraphrase in layer 3.
    rome: dict[int, Holds] = {
        0: lambda fact, kind: kind == "neighborhood" or fact % 2 == 0,
        2: lambda fact, kind: kind == "neighborhood" or fact % 10 != 0,
        3: lambda fact, kind: kind != "paraphrase" and (kind == "neighborhood" or fact % 4 != 0),
    }
    for layer, own in rome.items():
        # In free texts layer 3 always says the new answer, which only some ways to score see.
        _run(store, f"rome-b1-{layer:010d}", editor="rome", layers=[layer], own=own, says_new=layer == 3)
    # Fine-tuning breaks the model in round 11, with edits 22 and 23: nothing holds then; facts 4 to 7 disturb neighbors.
    _run(
        store,
        "ft-b2-0000000000",
        editor="ft",
        batch_size=2,
        own=lambda fact, kind: fact < 22 and not (kind == "neighborhood" and fact in range(4, 8)),
        kept=lambda fact, kind, at: at <= 20,
        spike=11,
    )
    # Two samples of EMMET: all of the one take, three quarters of the other.
    for sample, share in enumerate((1, 4)):
        _run(
            store,
            f"emmet-b1-{sample:010d}",
            editor="emmet",
            sample=sample,
            own=lambda fact, kind, share=share: kind == "neighborhood" or share == 1 or fact % share != 0,
        )
    spec = {"unit": "segment-000020", "traceback": "Traceback ..."}
    failed = CommitInfo(kind="segment", status="failed", message="the weights are NaN", spec=spec)
    store.commit("ft-b2-0000000000", "failed-segment-000020-1", {}, failed)


def _facts(store: Store) -> None:
    facts = [
        {"fact_id": f"f{i}", "position": i, "relation": "capital" if i < 20 else "job", "subject": f"S{i}", "template": "{} is",
         "prompt": f"S{i} is", "target_new": "new", "target_true": "old"} for i in range(N)
    ]  # fmt: skip
    probes = [
        {"fact_id": f"f{i}", "probe_id": f"f{i}/{kind}/{number}", "kind": kind, "index": number, "prompt": f"S{i} is",
         "target_new": "new", "target_true": "old"}
        for i in range(N) for kind, count in KINDS.items() for number in range(count)
    ]  # fmt: skip
    store.commit(FACTS, "facts", {"facts": facts, "probes": probes}, CommitInfo(kind="facts"))


def _baseline(store: Store) -> None:
    scores = _scores(range(N), lambda fact, kind: kind == "neighborhood", None, -1, 0, "baseline")
    questions = [row | {"scored_at": -1} for row in answered(180, 0)]
    row = run_row(BASELINE, editor="none", layers=[], facts_run_id=FACTS, baseline_run_id=None, experiment="grid")
    store.commit(
        BASELINE,
        "baseline",
        {"runs": [row], "fact_scores": scores, "benchmark_answers": questions},
        CommitInfo(kind="baseline"),
    )


def _scores(
    facts: Any, holds: Holds, size: int | None, scored_at: int, edits: int, purpose: str, says_new: bool = False
) -> list[dict[str, Any]]:
    return [
        score(fact, 0, 0, purpose=purpose, good=holds(fact, kind), kind=kind)
        | {"probe_id": f"f{fact}/{kind}/{number}", "edited_at": None if size is None else fact // size, "scored_at": scored_at,
           "edits_so_far": edits, "text": " new." if says_new or (kind == "neighborhood") != holds(fact, kind) else " old."}
        for fact in facts for kind, count in KINDS.items() for number in range(count)
    ]  # fmt: skip


def _run(
    store: Store, run_id: str, *, editor: str = "memit", layers: Any = (0,), batch_size: int = 1, sample: int = 0,
    own: Holds = lambda fact, kind: True, kept: Kept = lambda fact, kind, at: True, benchmark: Any = None,
    spike: int | None = None, seconds: float = 4.0, says_new: bool = False,
) -> None:  # fmt: skip
    """One run: what holds right after each round, and what is kept at each checkpoint of what held."""
    spec = {
        "facts": {"sample_seed": 0, "order_digest": None}, "hparams": {"lr": 0.5}, "contexts_recipe": None,
        "moments_recipe": None, "network_recipe": None,
        "model": {"chat": False, "text_start": "none", "adapter_digest": None, "particulars": {}},
    }  # fmt: skip
    row = run_row(
        run_id, editor=editor, layers=list(layers), batch_size=batch_size, sample=sample, model_digest="d", dtype="float32",
        facts_run_id=FACTS, spec=json.dumps(spec), experiment="grid", hparams=json.dumps({"lr": 0.5}),
        versions=json.dumps({"torch": "2.13.0"}),
    )  # fmt: skip
    n_rounds = N // batch_size
    edits = [{"round": i // batch_size, "position": i, "fact_id": f"f{i}"} for i in range(N)]
    rounds = [
        {"round": r, "edits_so_far": (r + 1) * batch_size, "parameter": "w", "outcome": "edited",
         "update_norm": 50.0 if r == spike else 1.0 + r % 3 / 10, "weight_norm": 10.0,
         "drift": 0.1 * (r + 1) + (50.0 if spike is not None and r >= spike else 0)}
        for r in range(n_rounds)
    ]  # fmt: skip
    rows = [
        each
        for r in range(n_rounds)
        for each in _scores(
            range(r * batch_size, (r + 1) * batch_size), own, batch_size, r, (r + 1) * batch_size, "own", says_new
        )
    ]
    for at in range(EVERY, N + 1, EVERY):
        rows += _scores(
            range(at),
            lambda fact, kind, at=at: own(fact, kind) and kept(fact, kind, at),
            batch_size,
            at // batch_size - 1,
            at,
            "retention",
            says_new,
        )
    tables = {"runs": [row], "edits": edits, "rounds": rounds, "fact_scores": rows,
              "timings": [{"stage": "segment", "seconds": seconds, "n_items": N, "device": "cpu"}]}  # fmt: skip
    if benchmark:
        tables["benchmark_answers"] = [
            each | {"scored_at": edits // batch_size - 1}
            for edits, right in benchmark.items()
            if edits
            for each in answered(right, edits)
        ]
    store.commit(run_id, "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=n_rounds))
