"""``common-knowledge``: true facts that ship with the project, for models that have read books; made from compact tables.

Each relation stands in a file of ``common_knowledge/``: its templates, and by object its subjects.  Counterfactual targets are
other objects of the same relation, neighbors other subjects of the same object.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from editing.requests import EditRequest

NAME = "common-knowledge"
AS_QUESTIONS = f"{NAME}-questions"
TITLES = {
    NAME: "true facts about the world, written for this project, with probes of portability",
    AS_QUESTIONS: "the same facts written as questions, as zsRE does, and asked as beginnings of sentences",
}
FOLDER = Path(__file__).parent / "common_knowledge"
NEIGHBORS = 10
_PROPERTIES = "properties"


class Source(BaseModel):
    """Where a relation's facts come from, if a package holds them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str
    version: str
    licence: str
    notice: str


class Relation(BaseModel):
    """A relation: what is asked, in several forms, and what is true."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rewrite: str
    """What is edited; ``{}`` stands for the subject, also in the other forms."""
    paraphrases: tuple[str, str]
    """Held apart: no edit sees them."""
    completion: str
    question: str
    about: str
    """A beginning that asks for no answer."""
    reversed: str
    """Asks for a subject of ``{object}``."""
    two_hop: tuple[tuple[str, str], ...] = ()
    """Questions about what follows from the object: a form, and the property of objects that answers it."""
    source: Literal["written"] | Source = "written"
    objects: Mapping[str, tuple[str, ...]]
    also: Mapping[str, tuple[str, ...]] = {}
    """Further answers that are true of a subject."""
    aliases: Mapping[str, str] = {}

    @field_validator("objects", mode="before")
    @classmethod
    def _split(cls, value: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        return {name: tuple(subjects.split("; ")) for name, subjects in value.items()}


class Probe(BaseModel):
    """A question about what an edit should carry over to, or must leave alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    group: str
    prompt: str = Field(min_length=1)
    answers: tuple[str, ...] = Field(min_length=1)


class Record(NamedTuple):
    """A fact with what belongs to it that an edit request has no place for."""

    request: EditRequest
    as_question: EditRequest
    """The same fact written by its question; the sentences in which it stands ask for it in another form."""
    accepted: tuple[str, ...]
    """All answers that are true, the one that is asked for first."""
    probes: tuple[Probe, ...]


@cache
def relations() -> dict[str, Relation]:
    """Return all relations by name."""
    files = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != _PROPERTIES)
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    return {name: Relation.model_validate(row) for rows in found for name, row in rows.items()}


@cache
def properties() -> dict[str, dict[str, str]]:
    """Return what follows of objects, by property."""
    found: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / f"{_PROPERTIES}.yaml").read_text(encoding="utf-8"))
    return found


@cache
def records() -> tuple[Record, ...]:
    """Return all facts, relation by relation."""
    return tuple(record for name, relation in relations().items() for record in _records(name, relation))


def requests(name: str = NAME) -> list[EditRequest]:
    """Return all facts of a data set of ``TITLES`` as edit requests."""
    return [record.request if name == NAME else record.as_question for record in records()]


def fill(template: str, subject: str) -> str:
    """Return a template with a subject in it; at the beginning of a sentence it begins with a capital letter."""
    return template.replace("{}", at_beginning(template, subject), 1)


def at_beginning(template: str, subject: str) -> str:
    """Return a subject as it is written in a template."""
    return subject[0].upper() + subject[1:] if template.startswith("{}") else subject


def _records(name: str, relation: Relation) -> Iterator[Record]:
    uses = Counter(dict.fromkeys(relation.objects, 0))
    for true, subjects in relation.objects.items():
        for place, subject in enumerate(subjects):
            accepted = (true, *relation.also.get(subject, ()))
            after = [*subjects[place + 1 :], *subjects[:place]]
            others = [each for each in after if not _names(each, subject)]
            new = _target(relation, accepted, others, uses)
            uses[new] += 1
            rewrite = at_beginning(relation.rewrite, subject)
            neighbors = _clean(relation, others, new)[:NEIGHBORS]
            request = EditRequest(
                request_id=f"{name}:{subject}",
                template=relation.rewrite,
                subject=rewrite,
                target_new=new,
                target_true=true,
                relation=name,
                paraphrase_prompts=tuple(fill(each, subject) for each in relation.paraphrases),
                neighborhood_prompts=tuple(fill(relation.rewrite, each) for each in neighbors),
                question_prompts=(fill(relation.question, subject),),
                completion_prompts=(fill(relation.completion, subject),),
                generation_prompts=(fill(relation.about, subject),),
            )
            as_question = replace(
                request,
                template=relation.question,
                subject=subject,
                paraphrase_prompts=(),
                neighborhood_prompts=tuple(fill(relation.question, each) for each in neighbors),
                question_prompts=(),
                completion_prompts=(request.prompt, *request.completion_prompts),
            )
            yield Record(request, as_question, accepted, tuple(_probes(relation, subject, true, new)))


def _names(text: str, subject: str) -> bool:
    """Return whether a subject stands in another, as Guinea in Equatorial Guinea."""
    return subject.removeprefix("the ").casefold() in text.casefold()


def _target(relation: Relation, accepted: Sequence[str], others: Sequence[str], uses: Counter[str]) -> str:
    """Return another object, not true of the subject: one that leaves the most neighbors, and of these the least used."""
    candidates = [thing for thing in relation.objects if thing not in accepted]
    return min(candidates, key=lambda thing: (-min(len(_clean(relation, others, thing)), NEIGHBORS), uses[thing]))


def _clean(relation: Relation, subjects: Sequence[str], new: str) -> list[str]:
    """Return the subjects of which a new target is not true."""
    return [each for each in subjects if new not in relation.also.get(each, ())]


def _probes(relation: Relation, subject: str, true: str, new: str) -> Iterator[Probe]:
    """Yield what follows from an edit, so that the answer before it is another."""
    portability = "portability"
    if (alias := relation.aliases.get(subject)) is not None:
        yield Probe(kind="alias", group=portability, prompt=fill(relation.rewrite, alias), answers=(new,))
    yield Probe(
        kind="reversed", group=portability, prompt=relation.reversed.replace("{object}", new), answers=(subject,)
    )
    for form, name in relation.two_hop:
        known = properties()[name]
        if new in known and known.get(true) != known[new]:
            yield Probe(kind="two_hop", group=portability, prompt=fill(form, subject), answers=(known[new],))
