"""What a model knows is asked before anything else, and facts that it does not know are left out."""

import json
from pathlib import Path

import pytest

from editing.factworld.world import World
from editing.measure.knowledge import ask_facts
from editing.model.loading import load
from editing.requests import EditRequest
from flows.spec import SpecError
from storage.sql import query
from storage.store import Store
from tasks.driver.plan import Plan
from tasks.workers.worker import Worker
from tests.tasks.support import all_stages, asked_plan, plan

N_KNOWN = 8


def hand_made() -> list[EditRequest]:
    """Facts of which the model knows every second: the others say of a subject what is not true of it."""
    requests = World(n_known=300).requests()[: 2 * N_KNOWN]
    found = []
    for number, request in enumerate(requests):
        true, new = (
            (request.target_true, request.target_new) if number % 2 == 0 else (request.target_new, request.target_true)
        )
        found.append(
            EditRequest(
                request_id=f"f{number}",
                template=request.template,
                subject=request.subject,
                target_true=true,
                target_new=new,
                neighborhood_prompts=request.neighborhood_prompts[:2],
                neighborhood_answers=(request.target_true,) * 2,
            )
        )
    return found


def facts_file(folder: Path) -> Path:
    path = folder / "facts.jsonl"
    rows = [
        {
            "id": r.request_id,
            "prompt": r.template,
            "subject": r.subject,
            "target_true": r.target_true,
            "target_new": r.target_new,
        }
        for r in hand_made()
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def planned(folder: Path, **changes: object) -> Plan:
    facts = {"name": "columns", "path": str(facts_file(folder)), "known": "first_token"}
    rest = {"score": {"every_edits": 0}, "second_moment": {"texts": "self", "n_texts": 64}} | changes
    return plan(folder, facts=facts | rest.pop("facts", {}), **rest)  # type: ignore[operator]


def ask(plan: Plan) -> None:
    worker = Worker(plan.store)
    for job in plan.knowledge:
        for unit in job.units():
            worker.do(unit)


def test_a_model_knows_what_is_true_and_not_what_is_false() -> None:
    lm = load("factworld-tiny")
    answers = ask_facts(lm, hand_made(), text_tokens=6)
    known = [answer for number, answer in enumerate(answers) if number % 2 == 0]
    unknown = [answer for number, answer in enumerate(answers) if number % 2]
    assert all(a is not None and a.first_token and a.all_tokens and a.rank == 1 and a.probability > 0.3 for a in known)
    assert all(a is not None and not a.first_token and not a.all_tokens and a.rank > 1 for a in unknown)
    for request, answer in zip(hand_made(), answers, strict=True):
        assert answer is not None and answer.text is not None
        assert (request.target_true in answer.text) == answer.all_tokens


def test_numbers_are_those_of_a_plain_forward_pass() -> None:
    import torch

    lm = load("factworld-tiny")
    request = hand_made()[1]
    (answer,) = ask_facts(lm, [request], text_tokens=2)
    (ids,) = lm.format.prompts([request.prompt])
    (tail,) = lm.format.answers([request.prompt], [request.target_true])
    with torch.no_grad():
        chances = lm.model(torch.tensor([ids])).logits[0, -1].double().softmax(0)
    assert answer is not None and answer.n_tokens == len(tail)
    assert answer.probability == pytest.approx(float(chances[tail[0]]), rel=1e-5)
    assert answer.rank == int((chances > chances[tail[0]]).sum()) + 1


def test_a_fact_without_a_true_answer_or_room_is_not_asked() -> None:
    lm = load("factworld-tiny")
    without = EditRequest(request_id="a", template="{} lives in", subject="Jonas Hagen", target_new="Rome")
    long = EditRequest(
        request_id="b", template="{} " + "lives " * 200, subject="Jonas", target_new="Rome", target_true="Bern"
    )
    assert ask_facts(lm, [without, long], text_tokens=2) == [None, None]
    assert ask_facts(lm, [], text_tokens=2) == []


@pytest.mark.parametrize("rule", ["first_token", "all_tokens", "free_text"])
def test_only_known_facts_are_edited(rule: str, tmp_path: Path) -> None:
    before = planned(tmp_path, facts={"known": rule})
    assert before.unasked and any("is asked all 16 facts first" in note for note in before.notes)
    ask(before)
    after = planned(tmp_path, facts={"known": rule})
    assert not after.unasked and any("the model knows 8 of 16" in note for note in after.notes)
    all_stages(after)
    edited = query(after.store, "SELECT DISTINCT fact_id FROM edits").to_pylist()
    assert {row["fact_id"] for row in edited} == {f"f{number}" for number in range(0, 16, 2)}
    shares = query(after.store, "SELECT n_facts, first_token, all_tokens, free_text FROM knowledge_summary").to_pylist()
    assert shares == [{"n_facts": 16, "first_token": 0.5, "all_tokens": 0.5, "free_text": 0.5}]
    assert {run.run_id for run in after.runs}.isdisjoint(run.run_id for run in before.runs)
    assert {run.run_id for run in planned(tmp_path, facts={"known": None}).runs} == {run.run_id for run in before.runs}


def test_too_few_known_facts_are_told(tmp_path: Path) -> None:
    ask(planned(tmp_path))
    with pytest.raises(SpecError, match=r"facts.size is 12, .* of which the model knows 8 by first_token"):
        planned(tmp_path, facts={"size": 12})


def test_what_was_asked_is_asked_once_by_whichever_rule(tmp_path: Path) -> None:
    first = planned(tmp_path)
    ask(first)
    store = Store(first.store)
    assert planned(tmp_path, facts={"known": "all_tokens"}).knowledge[0].is_done(store)
    assert len([row for row in query(first.store, "FROM commits").to_pylist() if row["kind"] == "know"]) == 1


def test_facts_without_true_answers_cannot_be_asked(tmp_path: Path) -> None:
    rows = [{"prompt": "{} lives in", "subject": f"Jonas {n}", "target_new": "Rome"} for n in "abcd"]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"path": str(tmp_path / "facts.jsonl"), "known": "free_text", "size": 2}
    with pytest.raises(SpecError, match=r"facts\.known: none of the facts has target_true"):
        plan(tmp_path, facts=facts, editors=["ft_c"], score={"every_edits": 0})


def test_some_facts_can_be_asked_in_place_of_all(tmp_path: Path) -> None:
    """Of two the first: of the hand-made ones these are the known."""
    facts = {"name": "columns", "path": str(facts_file(tmp_path)), "known": "first_token", "ask_every": 2}
    (job,) = plan(tmp_path, facts=facts, editors=["ft_c"], score={"every_edits": 0}).knowledge
    assert job.n_asked == N_KNOWN and job.every == 2
    planned = asked_plan(tmp_path, facts=facts, editors=["ft_c"], score={"every_edits": 0})
    rows = query(Store(planned.store), "SELECT position, first_token FROM knowledge ORDER BY 1").to_pylist()
    assert [row["position"] for row in rows] == list(range(0, 2 * N_KNOWN, 2)) and all(r["first_token"] for r in rows)
    assert planned.runs[-1].facts.size == N_KNOWN
    assert any(f"knows {N_KNOWN} of {N_KNOWN} that it was asked" in note for note in planned.notes)
    assert (
        plan(tmp_path, facts=facts | {"ask_every": 1}, editors=["ft_c"], score={"every_edits": 0}).knowledge[0].run_id
        != job.run_id
    )
