"""Data sets in their published layouts: read to one schema with the origin of each prompt, linted, put into recorded orders."""

import json
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from editing.requests import EditRequest
from flows.experiment_file import load_experiment
from flows.inputs import publish_inputs, read_inputs
from flows.plan import plan_experiment
from flows.spec_values import SpecError
from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
from tasks.data.facts import facts_digest, load_facts, publish_facts, read_facts
from tasks.data.lint import lint_requests, summary
from tasks.data.orders import listed_order, seeded_order
from tasks.errors import InputError
from tests.scores.models import grown_lm
from tests.tasks.support import plan


def rome(i: int, **changes: Any) -> dict[str, Any]:
    rewrite = {
        "prompt": "{} works as a",
        "relation_id": "P106",
        "subject": f"Person {i}",
        "target_new": {"str": "doctor"},
        "target_true": {"str": "baker"},
    }
    record = {
        "case_id": i,
        "requested_rewrite": rewrite | changes.pop("rewrite", {}),
        "paraphrase_prompts": [f"Yesterday. Person {i} is a", f"The job of Person {i} is"],
        "neighborhood_prompts": ["Anna Lee works as a"],
        "generation_prompts": [f"Person {i} is known for"],
    }
    return record | changes


def zsre(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "subject": f"River {i}",
        "src": f"How long is River {i}?",
        "rephrase": f"What length has River {i}?",
        "alt": f"{i} miles",
        "answers": [f"{i} km"],
        "pred": "x",
        "loc": "nq question: who wrote it",
        "loc_ans": "Walter",
    } | changes


def easyedit(i: int) -> dict[str, Any]:
    return {
        "case_id": i,
        "prompt": f"Person {i} works as a",
        "subject": f"Person {i}",
        "target_new": "doctor",
        "ground_truth": "baker",
        "rephrase_prompt": f"The job of Person {i} is",
        "locality_prompt": "Anna Lee lives in",
        "locality_ground_truth": "Rome",
    }


def known(i: int, relation: str, attribute: str) -> dict[str, Any]:
    fields = {"known_id": i, "subject": f"Hill {i}", "attribute": attribute, "relation_id": relation}
    return fields | {"prompt": f"Hill {i} is in", "template": "{} is", "prediction": " x"}


def write(root: Path, records: list[Any], name: str = "data.json") -> str:
    path = root / name
    lines = ".jsonl" in name
    path.write_text("".join(json.dumps(r) + "\n" for r in records) if lines else json.dumps(records))
    return str(path)


def test_rome_layout(tmp_path: Path) -> None:
    record = rome(3) | {"paraphrase_source": ["real", "template"], "neighborhood_source": ["pooled"]}
    (request,) = load_facts("counterfact", path=write(tmp_path, [record])).requests
    assert (request.request_id, request.subject, request.relation) == ("3", "Person 3", "P106")
    assert request.generation_prompts == ("Person 3 is known for",)
    assert request.origins == {"paraphrase": ("real", "template"), "neighborhood": ("pooled",)}


def test_easyedit_layout(tmp_path: Path) -> None:
    (request,) = load_facts("counterfact_easyedit", path=write(tmp_path, [easyedit(5)])).requests
    assert request.template == "{} works as a" and request.target_true == "baker"
    assert request.neighbors == (("Anna Lee lives in", "Rome"),), "with its own answer"
    assert request.origins == {"paraphrase": ("rephrase_prompt",), "neighborhood": ("locality_prompt",)}


@pytest.mark.parametrize(("name", "targets"), [("zsre", ("7 miles", "7 km")), ("zsre_answers", ("7 km", "7 miles"))])
def test_zsre_layout(name: str, targets: tuple[str, str], tmp_path: Path) -> None:
    completions = write(
        tmp_path, [{"question": "How long is River 7?", "text_completion_prompt": "The length of River 7 is"}], "c.json"
    )
    (request,) = load_facts(name, path=write(tmp_path, [zsre(7)]), completions=completions).requests
    assert (request.target_new, request.target_true) == targets and request.template == "How long is {}?"
    assert request.neighbors == (("nq question: who wrote it?", "Walter"),)
    assert request.completion_prompts == ("The length of River 7 is",)


def test_fever_layout(tmp_path: Path) -> None:
    record = {"prompt": "Ada wrote it.", "equiv_prompt": ["It was written by Ada."], "unrel_prompt": "B is C."}
    (request,) = load_facts("fever", path=write(tmp_path, [record | {"alt": "1", "unrel_ans": 0}])).requests
    assert (request.subject, request.prompt, request.target_new, request.target_true) == ("", "Ada wrote it.", "1", "0")
    assert request.neighbors == (("B is C.", "0"),) and request.paraphrase_prompts == ("It was written by Ada.",)


def test_known_facts_get_another_facts_answer(tmp_path: Path) -> None:
    records = [known(0, "P1", "Asia"), known(1, "P1", "Asia"), known(2, "P1", "Peru"), known(3, "P2", "Oslo")]
    requests = load_facts("known_facts", path=write(tmp_path, records)).requests
    assert [r.target_true for r in requests] == ["Asia", "Asia", "Peru", "Oslo"]
    assert [r.target_new for r in requests] == ["Peru", "Peru", "Asia", "Asia"], "of the relation, if it has another"


def test_what_is_written_to_the_store_is_read_again(tmp_path: Path) -> None:
    completions = write(tmp_path, [{"question": "How long is River 1?", "text_completion_prompt": "It is"}], "c.json")
    for number, facts in enumerate(
        (
            load_facts("zsre", path=write(tmp_path, [zsre(i) for i in range(3)]), completions=completions),
            load_facts("counterfact", path=write(tmp_path, [rome(i) for i in range(3)])),
        )
    ):
        store = Store(tmp_path / str(number), create=True)
        run_id = publish_facts(store, facts)
        assert read_facts(store, run_id) == facts.requests
        assert run_id == f"facts-{facts_digest(read_facts(store, run_id))}"


def test_a_data_sets_name_is_that_of_its_content(tmp_path: Path) -> None:
    """Fields that a request does not have leave its digest as it was before there were such fields."""
    plain = EditRequest(request_id="a", template="{} is", subject="x", target_new="y", target_true="z")
    before = {"request_id": "a", "template": "{} is", "subject": "x", "target_new": "y", "target_true": "z"}
    before |= {"relation": "", "paraphrase_prompts": [], "neighborhood_prompts": []}
    assert facts_digest([plain]) == digest_of([before])
    other = EditRequest(
        request_id="a", template="{} is", subject="x", target_new="y", target_true="z", generation_prompts=("x was",)
    )
    assert facts_digest([plain]) != facts_digest([other])


@pytest.mark.parametrize(
    "change",
    [{"alt": None}, {"answers": [None]}, {"answers": "7 km"}, {"answers": []}, {"rephrase": None}, {"loc_ans": ["a"]}],
    ids=str,
)
def test_what_is_no_text_is_no_answer(change: dict[str, Any], tmp_path: Path) -> None:
    facts = load_facts("zsre", path=write(tmp_path, [zsre(1), zsre(2, **change)]))
    assert len(facts.requests) == 1 and [f.reason for f in facts.findings] == ["malformed record"]


def test_a_case_id_of_zero_is_one(tmp_path: Path) -> None:
    records = [zsre(i, case_id=i) for i in (7, 0, 1)]
    assert [r.request_id for r in load_facts("zsre", path=write(tmp_path, records)).requests] == ["7", "0", "1"]


def test_a_layout_that_splits_a_text_into_letters_is_refused(tmp_path: Path) -> None:
    layout = tmp_path / "mine.yaml"
    fields = "{request_id: number, prompt: record.src, subject: record.subject, target_new: record.alt, "
    fields += "target_true: record.pred"
    layout.write_text(f"title: t\nfields: {fields}, paraphrase_prompts: record.rephrase}}\n")
    with pytest.raises(
        InputError, match="paraphrase_prompts is 'What length has River 1\\?'; expected a list of texts"
    ):
        load_facts(str(layout), path=write(tmp_path, [zsre(1)]))
    layout.write_text(f"title: t\nfields: {fields}, colour: record.x}}\norigins: {{bogus: \"['a']\"}}\n")
    with pytest.raises(InputError, match=r"(?s)no fields \['colour'\].*no kinds of probe \['bogus'\]"):
        load_facts(str(layout), path=write(tmp_path, [zsre(1)]))
    layout.write_text(f"title: t\nfields: {fields}, relation: 1 / 0}}\n")
    with pytest.raises(InputError, match="none of its 1 records can be edited"):
        load_facts(str(layout), path=write(tmp_path, [zsre(1)]))


# --- lint


def findings(tmp_path: Path, *records: Any, name: str = "counterfact") -> dict[str, tuple[str, bool]]:
    """Return {fact: (reason, refused)}; a good record stands first."""
    good = rome(99) if name == "counterfact" else zsre(99)
    facts = load_facts(name, path=write(tmp_path, [good, *records]))
    assert facts.n_records == 1 + len(records)
    assert {r.request_id for r in facts.requests}.isdisjoint({f.fact_id for f in facts.findings if f.refused} - {"99"})
    return {finding.fact_id: (finding.reason, finding.refused) for finding in facts.findings}


def test_every_reason_to_refuse(tmp_path: Path) -> None:
    found = findings(
        tmp_path,
        rome(1, rewrite={"prompt": "The king works as a"}),
        rome(2, rewrite={"prompt": "{} and {} work as a"}),
        rome(3, rewrite={"target_new": {"str": " "}}),
        rome(4, rewrite={"target_new": {"str": "baker "}}),
        rome(5, rewrite={"subject": None}),
        rome(6, paraphrase_prompts="one text"),
        rome(7, rewrite={"subject": "Person 99"}),
        "no record",
    )
    assert found == {
        "1": ("subject not in prompt", True),
        "2": ("not exactly one slot", True),
        "3": ("empty target", True),
        "4": ("targets equal", True),
        "5": ("slot without subject", True),
        "6": ("malformed record", True),
        "7": ("duplicate fact", True),
        "8": ("malformed record", True),
    }


def test_the_first_of_two_facts_with_one_id_stays(tmp_path: Path) -> None:
    records = [rome(1), rome(2), rome(1, rewrite={"subject": "Someone Else"})]
    facts = load_facts("counterfact", path=write(tmp_path, records))
    assert [(r.request_id, r.subject) for r in facts.requests] == [("1", "Person 1"), ("2", "Person 2")]
    assert [(f.fact_id, f.reason) for f in facts.findings if f.refused] == [("1", "duplicate id")]


def test_what_is_only_marked(tmp_path: Path) -> None:
    found = findings(
        tmp_path,
        rome(1, rewrite={"subject": "P{1}", "prompt": "{} works as a"}, paraphrase_prompts=["P{1} is a"]),
        rome(2, paraphrase_prompts=["Person 2 works as a"]),
        rome(3, paraphrase_prompts=["Person 3 is known for"]),
        rome(4, paraphrase_prompts=["The doctor is"]),
        rome(5, neighborhood_prompts=["person 5 lives in"]),
    )
    assert found == {
        "1": ("braces", False),
        "2": ("paraphrase is the prompt", False),
        "3": ("paraphrase is a generation prompt", False),
        "4": ("paraphrase lacks the subject", False),
        "5": ("neighbor names the subject", False),
    }


def test_zsre_questions_without_their_subject(tmp_path: Path) -> None:
    assert findings(tmp_path, zsre(1, src="How long is it?"), name="zsre") == {"1": ("subject not in prompt", True)}


def test_a_file_of_another_layout_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of its 1 records can be edited; record 0: .*CounterFact's layout"):
        load_facts("counterfact", path=write(tmp_path, [zsre(1)]))
    with pytest.raises(
        InputError,
        match=r"no data set 'counterfax' \(did you mean 'counterfact'\?\); "
        r"expected one of \['factworld', 'common-knowledge', 'columns'",
    ):
        load_facts("counterfax", path="x")
    with pytest.raises(InputError, match="facts of zsre need path:"):
        load_facts("zsre")


def test_no_hub_names_the_local_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"did not give 'azhx/counterfact' at 'c01c413f.*give a local file with path"):
        load_facts("counterfact")


def test_the_summary_counts_facts_once_per_reason() -> None:
    base = dict(template="{} is", target_new="y", target_true="z")
    twice = EditRequest(request_id="a", subject="x", paraphrase_prompts=("he is", "she is"), **base)
    rows = summary(2, lint_requests([twice, EditRequest(request_id="b", subject="w", **base | {"target_new": "z"})]))
    shown = [(row["reason"], row["refused"], row["facts"]) for row in rows]
    assert shown[:2] == [("(records read)", "", 2), ("(facts refused)", "yes", 1)]
    assert set(shown[2:]) == {("paraphrase lacks the subject", "no", 1), ("targets equal", "yes", 1)}


# --- orders


def people(subjects: list[str]) -> list[EditRequest]:
    return [
        EditRequest(request_id=str(i), template="{} is", subject=subject, target_new="y", target_true="z")
        for i, subject in enumerate(subjects)
    ]


def test_seeded_orders_repeat_no_subject() -> None:
    requests = people(["Ada", "Bo", "ada ", "Cy", "Bo", "Di"])
    order = seeded_order(requests, sample=0, seed=1, distinct=True)
    chosen = [requests[i].subject.casefold().strip() for i in order.positions]
    assert sorted(chosen) == ["ada", "bo", "cy", "di"] and order.digest is not None
    whole = seeded_order(requests, sample=0, seed=1, distinct=False)
    assert sorted(whole.positions) == list(range(6)) and whole.digest is None
    kept = [i for i in whole.positions if i in order.positions]
    assert kept == list(order.positions), "the same order, without repetitions"
    others = {seeded_order(requests, sample=s, seed=k, distinct=False).positions for s in (0, 1) for k in (1, 2)}
    assert len(others) == 4


def test_a_papers_own_list(tmp_path: Path) -> None:
    requests = people(["Ada", "Bo", "Cy", "ada"])
    path = Path(write(tmp_path, [[2, "0"], [1, 3]]))
    assert listed_order(requests, path, sample=0, distinct=True).positions == (2, 0)
    assert listed_order(requests, path, sample=1, distinct=True).positions == (1, 3)
    assert listed_order(requests, Path(write(tmp_path, [3, 1])), sample=0, distinct=True).positions == (3, 1)
    with pytest.raises(InputError, match="holds 1 lists of fact ids; expected sample 1"):
        listed_order(requests, Path(write(tmp_path, [3, 1])), sample=1, distinct=True)
    with pytest.raises(
        InputError, match=r"1 ids of sample 0 are not in the data set.*first is number 1, '9'.*such as '0'"
    ):
        listed_order(requests, Path(write(tmp_path, [3, 9])), sample=0, distinct=True)
    with pytest.raises(InputError, match=r"1 facts whose subject it has already.*mode: independent"):
        listed_order(requests, Path(write(tmp_path, [0, 3])), sample=0, distinct=True)
    assert listed_order(requests, Path(write(tmp_path, [0, 3])), sample=0, distinct=False).positions == (0, 3)


def test_orders_are_recorded_and_a_list_is_another_run(tmp_path: Path) -> None:
    seeded = plan(tmp_path)
    ids = [row["fact_id"] for row in query(seeded.store, "SELECT fact_id FROM fact_orders ORDER BY place").to_pylist()]
    assert len(ids) == 300 and len(set(ids)) == 300
    (tmp_path / "ids.json").write_text(json.dumps(ids[:20]))
    listed = plan(tmp_path, facts={"name": "factworld", "size": 12, "order": "ids.json"})
    assert {run.run_id for run in listed.runs}.isdisjoint({run.run_id for run in seeded.runs})
    orders = query(
        seeded.store, "SELECT sample_order, count(*) AS n FROM fact_orders GROUP BY ALL ORDER BY n"
    ).to_pylist()
    assert [row["n"] for row in orders] == [20, 300]


def test_what_the_lint_finds_is_in_the_plan_and_in_the_store(tmp_path: Path) -> None:
    records = [rome(i) for i in range(6)] + [
        rome(7, rewrite={"prompt": "He works as a"}),
        rome(8, rewrite={"subject": "person 0"}),
    ]
    write(tmp_path, records)
    facts = {"name": "counterfact", "path": "data.json", "size": 6}
    planned = plan(tmp_path, facts=facts, second_moment={"n_texts": 8})
    assert any("7 of 8 records; refused: subject not in prompt 1" in note for note in planned.notes)
    assert "facts: 1 repeat a subject and are left out of the order" in planned.notes
    (row,) = query(planned.store, "SELECT fact_id, reason FROM lint WHERE refused").to_pylist()
    assert row == {"fact_id": "7", "reason": "subject not in prompt"}
    with pytest.raises(
        SpecError, match=r"facts.size is 7, the data set .* has 7 facts, 6 of them in the order of sample 0"
    ):
        plan(tmp_path, facts=facts | {"size": 7}, second_moment={"n_texts": 8})


def test_ten_thousand_requests_in_a_minute(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The real CounterFact, where it is there: read, linted, put into order, tokenised and published."""
    root = request.config.getoption("--data")
    if root is None:
        pytest.skip("no --data DIR with published files")
    (tmp_path / "e.yaml").write_text(
        json.dumps(
            {
                "name": "t",
                "model": str(grown_lm(tmp_path / "lm")),
                "facts": {
                    "name": "counterfact",
                    "path": str(Path(root).resolve() / "counterfact/counterfact.jsonl.gz"),
                    "size": 10_000,
                },
                "editors": ["ft"],
                "layers": [0],
                "batch_sizes": [100],
                "store": str(tmp_path / "store"),
            }
        )
    )
    started = time.perf_counter()
    experiment = load_experiment(tmp_path / "e.yaml")
    inputs = read_inputs(experiment)
    planned = plan_experiment(inputs)
    assert time.perf_counter() - started < 60
    publish_inputs(inputs)
    assert planned.runs[-1].n_rounds == 100
    (row,) = query(planned.store, "SELECT count(*) AS n, count(DISTINCT fact_id) AS facts FROM fact_orders").to_pylist()
    assert row["n"] == row["facts"] >= 10_000
