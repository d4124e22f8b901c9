"""Facts are traced if the model knows them: those that it does not know are skipped and counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from editing.measure.tracing import known_facts, subject_noise
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.requests import EditRequest
from storage.sql import query
from storage.store import Store
from tasks.data.facts import world_for
from tasks.errors import InputError
from tasks.units.trace import TraceJob, find_known
from tasks.workers.worker import Worker
from tests.tasks.fakes import MODEL
from tests.tasks.support import plan

WANTED: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 4},
    "editors": ["no_op"],
    "score": {"every_edits": 0},
    "locate": {"trace": {"facts": 7, "samples": 2, "window": 2}},
}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("factworld-tiny")


def facts(count: int) -> list[EditRequest]:
    return world_for("factworld-tiny").requests()[:count]


def unknown(fact: EditRequest) -> EditRequest:
    """The same fact with another truth: its own new target, which the model does not say."""
    return replace(fact, target_true=fact.target_new, target_new=fact.target_true)


def test_a_fact_is_known_if_its_answer_is_the_likeliest_next_token(lm: LanguageModel) -> None:
    given = facts(12)
    mixed = [unknown(fact) if number % 3 == 0 else fact for number, fact in enumerate(given)]
    before = known_facts(lm, given, "first_token")
    found = known_facts(lm, mixed, "first_token")
    assert sum(before) >= 10, "this model knows its world"
    assert found == [is_known and number % 3 != 0 for number, is_known in enumerate(before)]


def test_the_official_rule_wants_the_whole_answer_in_one_token(lm: LanguageModel) -> None:
    given = [fact for fact in facts(60) if known_facts(lm, [fact], "first_token") == [True]]
    whole = [len(lm.format.answers([fact.prompt], [fact.target_true])[0]) == 1 for fact in given]
    assert known_facts(lm, given, "whole_answer") == whole
    longer = [replace(fact, target_true=f"{fact.target_true} and more") for fact in given[:3]]
    assert known_facts(lm, longer, "first_token") == [True] * 3
    assert known_facts(lm, longer, "whole_answer") == [False] * 3


def test_a_prompt_that_fills_the_context_is_not_known(lm: LanguageModel) -> None:
    fact = next(fact for fact in facts(40) if known_facts(lm, [fact], "first_token") == [True])
    long = replace(fact, template="The river is long. " * 60 + fact.template)
    assert known_facts(lm, [long, fact], "first_token") == [False, True]


def job(count: int, wanted: int, **other: Any) -> TraceJob:
    given = {
        "facts_run_id": "f",
        "facts_digest": "f",
        "order": {},
        "samples": 2,
        "window": 2,
        "noise": None,
        "threads": 1,
    }
    candidates = tuple(range(100, 100 + count))
    return TraceJob(
        **given | {"model": MODEL, "candidates": candidates, "wanted": wanted, "rule": "first_token"} | other
    )


def test_the_search_goes_on_until_enough_are_known(lm: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    good = [fact for fact in facts(40) if known_facts(lm, [fact], "first_token") == [True]][:6]
    mixed = [unknown(good[0]), good[1], unknown(good[2]), unknown(good[3]), good[4], good[5]]
    found = find_known(lm, mixed, job(6, 2))
    assert found.known == [1, 4] and found.asked == 5
    assert found.noise == subject_noise(lm, [good[1], good[4]]), "of the facts that are traced, all together"
    assert find_known(lm, mixed, job(6, 2, noise=0.5)).noise == 0.5 and not caplog.text
    assert find_known(lm, mixed, job(6, 9)).known == [1, 4, 5]
    assert "3 of 6 facts are known; 3 are traced, not 9" in caplog.text
    with pytest.raises(InputError, match=r"knows none of the 2 facts \(first_token.*leave locate\.trace out"):
        find_known(lm, [unknown(good[0]), unknown(good[1])], job(2, 1))


def test_a_run_traces_known_facts_in_units_and_says_how_many_it_skipped(tmp_path: Path) -> None:
    planned = plan(tmp_path, **WANTED)
    store, worker, (job,) = Store(planned.store), Worker(planned.store), planned.traces
    run_id = job.run_id
    worker.do(job.known_unit())
    for unit in job.traces(store):
        worker.do(unit)
    counts = "SELECT max(n_facts) AS n_facts, any_value(n_unknown) AS n_unknown FROM trace_summary"
    (row,) = query(store, counts).to_pylist()
    commit = store.read_commit(run_id, "known")
    assert commit is not None and commit.spec is not None
    assert row["n_facts"] == 7 == len(commit.spec["known"]) and row["n_unknown"] == commit.spec["asked"] - 7
    units = {unit for unit in store.commits(run_id) if unit.startswith("facts")}
    assert units == {"facts-0000", "facts-0005"}
    windows = query(store, 'SELECT DISTINCT kind, "window" FROM trace_summary ORDER BY kind').to_pylist()
    assert [(row["kind"], row["window"]) for row in windows] == [
        ("attention", job.window),
        ("hidden", 1),
        ("mlp", job.window),
    ]
    traced = query(store, "SELECT DISTINCT fact_id FROM traces").to_pylist()
    order = store.rows(store.commits(job.facts_run_id)["order-0-0"], "fact_orders")
    by_position = {int(each["position"]): each["fact_id"] for each in order}
    assert {each["fact_id"] for each in traced} == {by_position[i] for i in commit.spec["known"]}
    last = [int(each["position"]) for each in sorted(order, key=lambda each: -int(each["place"]))]
    assert set(commit.spec["known"]) <= set(last[: commit.spec["asked"]]), "from the order's end"


def test_the_rule_is_part_of_the_recipe(tmp_path: Path) -> None:
    found = []
    for protocol in ("corrected", "code", "paper"):
        (job,) = plan(tmp_path, **(WANTED | {"protocol": protocol})).traces
        found.append((job.recipe["known"], job.run_id))
    assert [rule for rule, _ in found] == ["first_token", "whole_answer", "first_token"]
    assert found[0] == found[2] and found[0][1] != found[1][1]


def test_no_known_fact_is_no_layer(tmp_path: Path) -> None:
    """The search for known facts fails, and so does nothing else."""
    planned = plan(tmp_path, **WANTED)
    (job,) = planned.traces
    store = Store(planned.store)
    worker = Worker(planned.store)
    unit = job.known_unit()
    with pytest.raises(InputError, match="knows none of the 0 facts"):
        worker.do(replace(unit, job=replace(job, candidates=())))
    assert job.units(store) == [unit]
