"""Every claim of every paper over planted stores: one in which all that the paper says holds, and one in which nothing does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.papers import load_paper, paper_names
from storage.commits import CommitInfo
from storage.store import Store
from tasks.reports.verdicts import judge
from tests.storage.test_settings import always, answered, run
from tests.storage.test_views import BASELINE, run_row, score

GPTJ, XL = "EleutherAI/gpt-j-6b", "openai-community/gpt2-xl"


def add(store: Store, run_id: str, table: str, rows: list[dict[str, Any]], kind: str = "own", **info: Any) -> None:
    store.commit(run_id, f"more-{table}-{kind}", {table: rows}, CommitInfo(kind=kind, **info))


def baseline(store: Store, model: str, facts: range, answers: list[dict[str, Any]], run_id: str = BASELINE) -> None:
    """The unedited model: it knows all neighbors."""
    row = run_row(run_id, editor="none", model=model)
    rows = [score(fact, -1, -1, purpose="baseline", good=True, kind="neighborhood") for fact in facts]
    store.commit(run_id, "b", {"runs": [row], "fact_scores": rows}, CommitInfo(kind="baseline"))
    add(store, run_id, "benchmark_answers", answers, "questions")


def diagnosed(store: Store, run_id: str, fact: str, *, times: float, first: float) -> None:
    """What `palimpsest diagnose` writes of an edit."""
    steps = [
        ("alone", fact, "update_norm", times),
        ("first", fact, "update_norm", times),
        ("first", fact, "neighborhood", first),
        ("ordinary", "f9", "update_norm", 1.0),
    ]
    rows = [
        {
            "score": "diagnosis",
            "scored_at": 3,
            "edits_so_far": 3,
            "item": f"{i:02d} {stage} {of}",
            "name": name,
            "value": value,
        }
        for i, (stage, of, name, value) in enumerate(steps)
    ]
    rows.append({"score": "diagnosis", "scored_at": 3, "item": fact, "name": "verdict", "text": "it breaks the model"})
    add(store, run_id, "measurements", rows, "diagnosis")


Good = Callable[[int, str], bool]


def forgetting_editors(holds: bool) -> dict[str, tuple[Good, Good | None, int]]:
    """Of each editor: what holds right after its round and on the final model, by place among 200 edits; questions left."""

    def kept(of: Good, every: int, neighbors: bool) -> Good:
        return lambda at, kind: neighbors if kind == "neighborhood" else of(at, kind) and at % every == 0

    if holds:
        rome: Good = lambda at, kind: at < (60 if kind == "neighborhood" else 150)  # noqa: E731
        memit: Good = lambda at, kind: kind == "neighborhood" or at % 2 == 0  # noqa: E731
        # A third of what ROME forgets, four in five.
        keeps: Good = lambda at, kind: kind == "neighborhood" or (memit(at, kind) and at % 15 > 3)  # noqa: E731
        return {
            "rome": (rome, kept(rome, 5, False), 60),
            "memit": (memit, keeps, 195),
            "ft_c": (always, kept(always, 50, True), 150),
            "mend": (lambda at, kind: at < 20, None, 100),
        }
    rome = lambda at, kind: at >= 60 if kind == "neighborhood" else at < 60 and at % 2 == 0  # noqa: E731
    memit = lambda at, kind: kind != "neighborhood" or at % 10 == 0  # noqa: E731
    ft_c: Good = lambda at, kind: kind != "neighborhood" and at < 40  # noqa: E731
    return {
        "rome": (rome, kept(rome, 4, True), 195),
        "memit": (memit, kept(memit, 50, False), 5),
        "ft_c": (ft_c, kept(ft_c, 1, False), 5),
        "mend": (always, None, 100),
    }


def plant_forgetting(store: Store, holds: bool) -> None:
    """Four samples of 200 edits of each editor; longer runs of MEMIT; what is asked as completions."""
    baseline(store, GPTJ, range(800), answered(200 if holds else 150, 0))
    for editor, (good, final, right) in forgetting_editors(holds).items():
        for sample in range(4):
            start, name = 200 * sample, f"{editor}-{sample}"
            run(
                store, name, lambda fact, kind, good=good, start=start: good(fact - start, kind),
                facts=range(start, start + 200),
                final=final and (lambda fact, kind, final=final, start=start: final(fact - start, kind)),
                editor=editor, model=GPTJ, sample=sample,
            )  # fmt: skip
            rows = answered(right, 200) + answered(0 if holds else 200, 100)
            add(store, name, "benchmark_answers", rows, "questions")
    diagnosed(store, "rome-0", "f3", times=409 if holds else 3, first=0.1 if holds else 0.9)
    diagnosed(store, "memit-0", "f3", times=2, first=0.9 if holds else 0.1)
    for model, edits, breaks in ((GPTJ, 2000, 1400), (XL, 5000, 4000)):
        at = breaks if holds else breaks // 2
        run(store, f"memit-{edits}", lambda fact, kind, at=at: fact < at, facts=range(edits), n_neighbors=0, editor="memit",
            model=model, model_digest=model)  # fmt: skip
    rows = [
        score(fact, fact, fact, purpose="own", good=not holds or fact % 10 < 3, kind="completion")
        for fact in range(200)
    ]
    run(store, "rome-alone", always, facts=range(200), editor="rome", model=GPTJ, mode="independent")
    add(store, "rome-alone", "fact_scores", rows)
    # In a sequence completions are asked, too, and say something else.
    others = [score(f, f, f, purpose="own", good=holds or f % 10 < 3, kind="completion") for f in range(200)]
    add(store, "rome-0", "fact_scores", others, "others")


def plant_batches(store: Store, holds: bool) -> None:
    """Layers searched with two editors; batches alone, and in sequences of 4,096."""
    for editor in ("rome", "memit"):
        best = 1 if holds else (5 if editor == "rome" else 6)
        rows = [
            score(fact, 0, 0, purpose="own", good=abs(layer - best) * 90 < 300 - fact, kind=kind) | {
                "model": "m", "editor": editor, "protocol": "corrected", "layer": layer
            }
            for layer in range(8) for fact in range(300) for kind in ("rewrite", "paraphrase", "neighborhood")
        ]  # fmt: skip
        keep = (
            "model",
            "editor",
            "protocol",
            "layer",
            "fact_id",
            "probe_id",
            "kind",
            "nll_new",
            "n_new",
            "nll_true",
            "n_true",
        )
        rows = [{name: row[name] for name in keep} for row in rows]
        store.commit(f"search-{editor}", "u", {"layer_scores": rows}, CommitInfo(kind="search"))
    sizes = (16, 64, 1024, 4096)
    for editor in ("emmet", "memit"):
        for place, size in enumerate(sizes):
            worse = place if holds else 3 - place
            lost = {"neighborhood": 30 * worse, "rewrite": (8 if holds else 10) * worse, "paraphrase": 10 + 5 * worse}
            lost["paraphrase"] += 40 if (size == 16) == holds else 0
            good = lambda fact, kind, lost=lost: fact >= lost[kind]  # noqa: E731
            run(
                store,
                f"{editor}-{size}-alone",
                good,
                facts=range(200),
                batch_size=size,
                mode="independent",
                editor=editor,
                model="m",
            )
            # In sequences the middle is best, and the larger the batches, the more neighborhoods are kept.
            kept = {16: 90, 64: 60, 1024: 30, 4096: 20} if holds else {16: 10, 64: 12, 1024: 60, 4096: 90}
            fails = {16: 60, 64: 40, 1024: 5, 4096: 80} if holds else {16: 0, 64: 30, 1024: 60, 4096: 10}
            apart = 0 if holds or editor == "emmet" else 60
            final = lambda fact, kind, size=size, apart=apart, kept=kept, fails=fails: (  # noqa: E731
                fact >= (kept[size] if kind == "neighborhood" else fails[size] + apart)
            )
            run(store, f"{editor}-{size}-sequence", final, facts=range(200), final=final, batch_size=size, editor=editor,
                model="m", unscored=3896)  # fmt: skip


def plant_joint(store: Store, holds: bool) -> None:
    """Batches of each model with the paper's numbers, or with others."""
    printed = {
        ("bert-base-fever", 512): {
            None: (0.93, 0.858, 0.895), "sum-of-shifts": (0.791, 0.751, 0.729), "first-fc": (0.503, 0.503, 0.51),
            "all-tokens": (0.97, 0.9, 0.903),
        },
        ("openai-community/gpt2", 512): {
            None: (0.997, 0.961, 0.165), "sum-of-shifts": (0.522, 0.507, 0.17), "no-regularisation": (0, 0, 0),
            "first-fc": (0.977, 0.891, 0.158), "all-tokens": (0.992, 0.94, 0.166),
        },
        (GPTJ, 8192): {None: (0.997, 0.928, 0.251), "all-tokens": (0.94, 0.855, 0.259)},
    }  # fmt: skip
    for (model, size), variants in printed.items():
        others: dict[tuple[str, str | None], tuple[float, ...]] = {
            ("malmen", key): each for key, each in variants.items()
        }
        others |= {(editor, None): (0.3, 0.3, variants[None][2]) for editor in ("mend", "ft", "memit")}
        for (editor, preset), shares in others.items():
            name = f"{model.split('/')[-1]}-{editor}-{preset}"
            most = [
                200 * (share if holds else 0.6 - 0.5 * share if editor == "malmen" and preset is None else 0.7)
                for share in shares
            ]
            kinds = dict(zip(("rewrite", "paraphrase", "neighborhood"), most, strict=True))
            run(store, name, lambda fact, kind, kinds=kinds: fact < kinds[kind], facts=range(200), n_neighbors=1, editor=editor,
                preset=preset, batch_size=size, mode="independent", model=model, model_digest=model,
                spec={"hparams": {"preset": preset}, "network_recipe": {"name": name} if editor == "malmen" else None}
            )  # fmt: skip
            summed = preset == "sum-of-shifts"
            residual = [
                {"round": 0, "edits_so_far": 200, "parameter": "w", "mean_residual": 1000.0 if summed == holds else 1.0}
            ]
            add(store, name, "rounds", residual)
            hours = (
                {"memit": 33.75, "malmen": 12.25 if preset is None else 20.05}
                if holds
                else {"memit": 5, "malmen": 12 if preset is None else 6}
            )
            edited = [{"stage": "segment", "seconds": hours.get(editor, 1) - (1 if editor == "malmen" else 0)}]
            add(store, name, "timings", edited, "timed")
            if editor == "malmen":
                info = {"spec": {"compute": {}, "recipe": {"name": name}}}
                add(store, f"train-{name}", "timings", [{"stage": "train", "seconds": 1.0}], "train", **info)


def plant_abilities(store: Store, holds: bool) -> None:
    """Three models and their answers to four benchmarks before, and after 1, 10, 20 and 100 edits."""
    names = ("mmlu", "commonsense_qa", "mbpp", "tydiqa")
    after = (0, 1, 10, 20, 100)

    def asked(right: dict[int, int]) -> list[dict[str, Any]]:
        return [
            row for edits, n in right.items() for name in names for row in answered(n, edits, n=200, benchmark=name)
        ]

    for model, loss in (("Llama-2-7b-hf", 100), ("Llama-2-7b-chat-hf", 40), ("Llama-2-13b-hf", 40)):
        before = 200 if holds else 50
        start = f"none-{model}"
        baseline(store, f"meta-llama/{model}", range(100), asked({0: before}), start)
        steps = dict(zip(after[1:], (0.1, 0.3, 0.6, 1.0), strict=True))
        settings: dict[str, tuple[dict[str, Any], float]] = {
            "rome": ({"editor": "rome", "layers": [5]}, 1.0),
            "memit": ({"editor": "memit", "layers": [4, 5]}, 1.0),
            "mend": ({"editor": "mend", "layers": [29], "preset": "original"}, 1.0),
        }
        if model == "Llama-2-7b-hf":
            settings |= {
                "deep": ({"editor": "rome", "layers": [25]}, 0.3),
                "free": ({"editor": "rome", "layers": [5], "preset": "without-second-moment"}, 1.5),
                "all": ({"editor": "memit", "layers": [4, 5], "batch_size": 100}, 0.2),
                "grace": ({"editor": "grace", "layers": [27]}, 0.0),
            }
        for key, (what, share) in settings.items():
            name = f"{model}-{key}"
            spec = {"hparams": {"preset": what.get("preset")}}
            run(store, name, always, facts=range(100), model=f"meta-llama/{model}", baseline_run_id=start, model_digest=model,
                spec=spec, **what)  # fmt: skip
            gone = {edits: round(loss * share * step) for edits, step in steps.items()}
            right = {edits: max(0, 200 - lost) if holds else min(200, 50 + lost) for edits, lost in gone.items()}
            if key == "grace" and not holds:
                right = dict.fromkeys(right, 0)
            add(store, name, "benchmark_answers", asked(right), "questions")


def plant_texts(store: Store, holds: bool) -> None:
    """Every token right under teacher forcing and 42 of 100 texts; or no token, and every text."""
    facts = range(100)
    row = run_row("rome", editor="rome", model="llama", facts_run_id="facts-1")
    probes = [
        {"probe_id": f"f{fact}/rewrite/0", "fact_id": f"f{fact}", "kind": "rewrite", "target_new": "Paris"}
        for fact in facts
    ]
    store.commit("facts-1", "facts", {"probes": probes}, CommitInfo(kind="facts"))
    said = {fact: "Paris." if fact < 42 or not holds else "the city of Paris." for fact in facts}
    scores = [score(fact, fact, fact, purpose="own", good=holds) | {"text": said[fact]} for fact in facts]
    tables = {"runs": [row], "fact_scores": scores}
    store.commit("rome", "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=len(facts)))


PLANTS = {
    "forgetting": plant_forgetting,
    "llama3-batch-size": plant_batches,
    "malmen": plant_joint,
    "dual-facets": plant_abilities,
    "mirage": plant_texts,
}


def test_all_papers_are_planted() -> None:
    assert sorted(PLANTS) == paper_names()


@pytest.mark.parametrize("paper", PLANTS)
@pytest.mark.parametrize("holds", [True, False])
def test_a_planted_store_decides_every_claim(tmp_path: Path, paper: str, holds: bool) -> None:
    store = Store(tmp_path / "store", create=True)
    PLANTS[paper](store, holds)
    judged = judge(store, load_paper(paper).claims_of(None), with_numbers=True)
    wanted = "agrees" if holds else "differs"
    wrong = {
        each.claim.name: (each.verdict, each.found)
        for each in judged
        if not each.claim.excused and each.verdict != wanted
    }
    assert not wrong, json.dumps(wrong, indent=1)
