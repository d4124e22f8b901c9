"""The facts that ship: balanced, true by their own tables, with neighbors and probes that ask for what they say."""

from collections import Counter

import pytest

from tasks.data.facts import dataset_titles, facts_digest, load_facts
from tasks.data.lint import balance, lint_requests
from tasks.data.shipped_facts import (
    AS_QUESTIONS,
    FOLDER,
    NAME,
    NEIGHBORS,
    Relation,
    fill,
    properties,
    records,
    relations,
    requests,
)


def test_there_are_enough_and_each_relation_is_balanced() -> None:
    assert len(relations()) >= 25 and len(requests()) >= 1500
    rows = {row["relation"]: row for row in balance(requests())}
    assert rows.keys() == relations().keys()
    for name, relation in relations().items():
        for thing, subjects in relation.objects.items():
            assert len(subjects) >= NEIGHBORS + 1, (name, thing)
            assert len(set(subjects)) == len(subjects), (name, thing)
        row = rows[name]
        assert row["neighbors"] == "10" and row["true answers"] == len(relation.objects), row
        # Most musicians play the piano a little, so that it is never false enough.
        assert row["new targets"] == len(relation.objects) - (name == "musician_instrument"), row
        least, _, most = row["facts per new target"].partition("–")
        assert int(least) >= 5 and int(most or least) <= 40, row


def test_no_counterfactual_is_true() -> None:
    for record in records():
        request, relation = record.request, relations()[record.request.relation]
        assert request.target_new in relation.objects and request.target_new not in record.accepted
        assert request.target_true == record.accepted[0]


def test_neighbors_share_the_true_answer_and_not_the_new_one() -> None:
    known = {record.request.prompt: record for record in records()}
    for record in records():
        request = record.request
        assert len(set(request.neighborhood_prompts)) == NEIGHBORS
        for prompt in request.neighborhood_prompts:
            other = known[prompt]
            assert other.request.target_true == request.target_true and other.request.relation == request.relation
            assert request.target_new not in other.accepted and other is not record


def test_every_fact_has_four_forms_that_name_its_subject() -> None:
    for request in requests():
        forms = [request.prompt, *request.paraphrase_prompts, *request.completion_prompts, *request.question_prompts]
        assert len(set(forms)) == 5
        assert all(request.subject.casefold() in form.casefold() for form in forms), request.request_id
        assert all(form[0] == form[0].upper() and not form.endswith(" ") for form in forms), forms
        assert all("{" not in form for form in (*forms, *request.generation_prompts))


def test_probes_follow_from_the_edit_and_not_from_the_truth() -> None:
    counts = Counter(probe.kind for record in records() for probe in record.probes)
    assert counts["reversed"] == len(records()) and counts["two_hop"] > 1000 and counts["alias"] > 40
    for record in records():
        request, relation = record.request, relations()[record.request.relation]
        for probe in record.probes:
            assert probe.group == "portability" and "{" not in probe.prompt
            if probe.kind == "two_hop":
                subject = request.request_id.partition(":")[2]
                (name,) = (name for form, name in relation.two_hop if fill(form, subject) == probe.prompt)
                assert probe.answers == (properties()[name][request.target_new],)
                assert properties()[name].get(request.target_true) != probe.answers[0]
            if probe.kind == "alias":
                assert probe.answers == (request.target_new,) and probe.prompt != request.prompt


def test_what_follows_is_known_of_objects_alone() -> None:
    things = {thing for relation in relations().values() for thing in relation.objects}
    used = {name for relation in relations().values() for _, name in relation.two_hop}
    assert used == properties().keys()
    assert all(thing in things for known in properties().values() for thing in known)


def test_many_subjects_have_several_facts() -> None:
    counts = Counter(request.request_id.partition(":")[2] for request in requests())
    assert sum(count > 1 for count in counts.values()) > 100


def test_sources_are_named_with_their_licence() -> None:
    packages = {relation.source for relation in relations().values() if relation.source != "written"}
    assert packages
    for source in packages:
        assert not isinstance(source, str) and source.version and source.notice
        assert source.licence == "CC-BY-4.0" or (FOLDER / "licences" / f"{source.package}.txt").read_text()


def test_it_is_a_data_set_like_any_other() -> None:
    facts = load_facts(NAME)
    assert len(facts.requests) == len(requests()) and not [f for f in facts.findings if f.refused]
    assert not lint_requests(facts.requests) and NAME in dataset_titles()
    assert facts_digest(facts.requests) == facts_digest(load_facts(NAME).requests)


def test_the_same_facts_are_there_as_questions() -> None:
    facts = load_facts(AS_QUESTIONS)
    assert not [f for f in facts.findings if f.refused] and not lint_requests(facts.requests)
    assert len(facts.requests) == len(requests()) and AS_QUESTIONS in dataset_titles()
    questions = {request.prompt for request in facts.requests}
    for asked, written in zip(facts.requests, requests(), strict=True):
        assert (asked.request_id, asked.target_new, asked.target_true) == (
            written.request_id,
            written.target_new,
            written.target_true,
        )
        assert (asked.prompt,) == written.question_prompts and asked.prompt.endswith("?")
        assert asked.completion_prompts == (written.prompt, *written.completion_prompts)
        assert len(set(asked.neighborhood_prompts)) == NEIGHBORS and set(asked.neighborhood_prompts) <= questions


def test_a_table_with_an_unknown_field_is_refused() -> None:
    row = next(iter(relations().values())).model_dump() | {"objects": {"a": "b; c"}, "templates": []}
    with pytest.raises(ValueError, match="templates"):
        Relation.model_validate(row)
