"""Facts as people have them, read into requests."""

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from editing.errors import RequestError
from editing.records import COLUMNS, columns_unused, request_from, requests_from
from editing.requests import EditRequest

FACT = {"prompt": "The capital of France is", "subject": "France", "target_new": "Rome"}
COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} works as a", "subject": "Ada", "target_new": {"str": "doctor"}, "target_true": {"str": "baker"}
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "facts",
    [[FACT], FACT, (FACT,), iter([FACT]), pd.DataFrame([FACT]), pl.DataFrame([FACT]), pa.Table.from_pylist([FACT])],
    ids=lambda facts: type(facts).__name__,
)
def test_every_form_gives_the_same_request(facts: Any) -> None:
    (request,) = requests_from(facts)
    assert request == EditRequest(
        request_id="0", template="The capital of {} is", subject="France", target_new="Rome", target_true=""
    )


def test_a_slot_an_id_and_lists() -> None:
    given = FACT | {
        "prompt": "{} has the capital", "id": "fr", "relation": "P36",
        "paraphrase_prompts": '["France is led from", "In France"]',
        "neighborhood_prompts": ["Spain is led from"], "neighborhood_answers": "Madrid", "target_true": "Paris", "note": "x",
    }  # fmt: skip
    request = request_from(given, 3)
    assert (request.request_id, request.relation, request.prompt) == ("fr", "P36", "France has the capital")
    assert request.paraphrase_prompts == ("France is led from", "In France")
    assert request.neighbors == (("Spain is led from", "Madrid"),)
    assert columns_unused([given]) == ["note"] and "prompt" in COLUMNS


def test_counterfact_and_requests_are_taken_as_they_are() -> None:
    first, second = requests_from([COUNTERFACT, EditRequest(request_id="x", template="a", subject="", target_new="b")])
    assert (first.request_id, first.target_true, second.target_true) == ("7", "baker", "")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"target_new": None}, ["record 1: target_new: found None; expected a text"]),
        ({"target_new": float("nan")}, ["record 1: target_new: found nan"]),
        ({"prompt": "  "}, ["record 1: prompt: found '  '"]),
        ({"target_new": 1.5}, ["record 1: target_new: found 1.5 (float); expected a text"]),
        ({"target_new": True}, ["record 1: target_new: found True (bool)"]),
        ({"subject": "Spain"}, ["record 1: the subject 'Spain' is not in its prompt"]),
        ({"prompt": "{} and {} are"}, ["has 2 slots"]),
        ({"paraphrase_prompts": "[a"}, ["paraphrase_prompts: found '[a', which is not JSON"]),
        ({"paraphrase_prompts": [1]}, ["paraphrase_prompts: found [1]; expected one text, or a list"]),
        ({"neighborhood_prompts": "Spain"}, ["neither target_true nor neighborhood_answers"]),
        ({"target_true": "  "}, []),
    ],
)
def test_a_record_that_cannot_be_read_says_why(change: dict[str, Any], parts: list[str]) -> None:
    if not parts:
        assert request_from(FACT | change, 1).target_true == ""
        return
    with pytest.raises(RequestError) as caught:
        requests_from([FACT, FACT | change])
    for part in parts:
        assert part in str(caught.value)


def test_another_name_of_a_column_is_found() -> None:
    record = {"prompt": "a S", "subject": "S", "target": "x"}
    with pytest.raises(RequestError, match=r"found only the columns .*is it the column 'target'\? Call it target_new"):
        request_from(record, 0)


@pytest.mark.parametrize("facts", [[], "facts.csv", 5, [5], [FACT | {"id": 1}, FACT | {"id": "1"}]], ids=str)
def test_what_is_no_facts(facts: Any) -> None:
    with pytest.raises(RequestError):
        requests_from(facts)


@pytest.mark.parametrize(
    ("prompt", "template"),
    [("Romeo loves Rome", "Romeo loves {}"), ("Romeo loves romerome", None), ("Rome and Rome", "{} and Rome"),
     ("a ROMEROME", None), ("Romes are", "{}s are")],
)  # fmt: skip
def test_a_subject_is_found_as_a_word_of_its_own(prompt: str, template: str | None) -> None:
    given = FACT | {"prompt": prompt, "subject": "Rome"}
    if template is None:
        template = prompt.replace("Rome", "{}", 1)
        if "{}" not in template:
            with pytest.raises(RequestError, match="is not in its prompt"):
                request_from(given, 0)
            return
    assert request_from(given, 0).template == template


def test_spaces_at_the_ends_are_none_of_the_texts() -> None:
    given = {"prompt": "{} lives in ", "subject": " Bo", "target_new": " Rome ", "paraphrase": " Bo is at home in "}
    request = request_from(given, 0)
    assert (request.prompt, request.target_new, request.paraphrase_prompts) == (
        "Bo lives in",
        "Rome",
        ("Bo is at home in",),
    )


def test_a_slot_in_other_words_is_the_subjects() -> None:
    given = FACT | {"prompt": "{} has", "paraphrase_prompts": ["In {}"], "generation_prompts": "{} is"}
    request = request_from(given, 0)
    assert request.paraphrase_prompts == ("In France",) and request.generation_prompts == ("France is",)
    neighbor = given | {"neighborhood_prompts": "{} has", "neighborhood_answers": "x"}
    with pytest.raises(RequestError, match="a neighborhood prompt is about another one"):
        request_from(neighbor, 0)


def test_a_row_of_a_frame() -> None:
    assert requests_from(pd.DataFrame([FACT]).iloc[0]) == requests_from([FACT])


def test_an_empty_column_does_not_hide_a_filled_one() -> None:
    given = FACT | {"paraphrase_prompts": "", "paraphrase": "In France", "id": 3.0}
    assert request_from(given, 0).paraphrase_prompts == ("In France",) and request_from(given, 0).request_id == "3"


def test_whole_numbers_are_taken_as_they_are_written() -> None:
    assert request_from(FACT | {"target_new": 1955, "id": 3}, 0).target_new == "1955"
