"""Edit requests: the fact to write, and the prompts on which it is later probed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from editing.errors import RequestError

SLOT = "{}"


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One fact to write into a model: after ``template`` filled with ``subject``, say ``target_new``.

    A request may have no subject; then the template is the whole prompt, and editors that look for the subject's state
    refuse it.

    Raises:
        RequestError: The template has not exactly one ``{}`` for the subject, or a target is empty.
    """

    request_id: str
    template: str
    """Prompt with ``{}`` where the subject stands; the answer follows after one space."""
    subject: str
    """Empty if the fact has none."""
    target_new: str
    target_true: str = ""
    """What the model says, or should say, before the edit; the neighborhood prompts expect it too.  Empty if not known."""
    relation: str = ""
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()
    neighborhood_answers: tuple[str, ...] = ()
    """What each neighborhood prompt expects, where it is not ``target_true`` (zsRE's unrelated questions); else empty."""
    question_prompts: tuple[str, ...] = ()
    """The fact asked as a question."""
    completion_prompts: tuple[str, ...] = ()
    """The fact as the beginning of a sentence, of a request whose own prompt is a question."""
    generation_prompts: tuple[str, ...] = ()
    """Beginnings about the subject from which the model writes freely; they ask for no answer."""
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By kind of probe, where each of its prompts comes from; kinds that are not named come from the record itself."""

    def __post_init__(self) -> None:
        slots = self.template.count(SLOT)
        if not self.subject and SLOT in self.template:
            raise RequestError(
                f"request {self.request_id!r}: the prompt {self.template!r} has a slot and no subject; expected a subject "
                "for it, or a prompt without a slot",
                reason="slot without subject",
            )
        if self.subject and slots != 1:
            raise RequestError(
                f"request {self.request_id!r}: the prompt {self.template!r} has {slots} slots '{{}}', expected exactly "
                f"one where the subject {self.subject!r} stands; write the slot, or use EditRequest.from_prompt",
                reason="not exactly one slot",
            )
        if not self.target_new.strip():
            raise RequestError(
                f"request {self.request_id!r}: target_new is empty; every request needs one", reason="empty target"
            )
        if self.target_true and not self.target_true.strip():
            raise RequestError(
                f"request {self.request_id!r}: target_true is blank ({self.target_true!r}); give an answer, or leave it out",
                reason="empty target",
            )
        answers = self.neighborhood_answers
        if self.neighborhood_prompts and not answers and not self.target_true:
            raise RequestError(
                f"request {self.request_id!r}: {len(self.neighborhood_prompts)} neighborhood prompts and neither target_true "
                "nor neighborhood_answers; give what they should go on saying, or leave them out",
                reason="neighbors without answers",
            )
        if answers and (len(answers) != len(self.neighborhood_prompts) or not all(a.strip() for a in answers)):
            raise RequestError(
                f"request {self.request_id!r}: {len(self.neighborhood_prompts)} neighborhood prompts with the answers "
                f"{answers!r}; expected one for each, or none"
            )

    @property
    def prompt(self) -> str:
        """The template with the subject in its slot; braces elsewhere stay as they are."""
        return self.template.replace(SLOT, self.subject, 1) if self.subject else self.template

    @property
    def subject_end(self) -> int:
        """Index of the character after the subject in :attr:`prompt`."""
        return self.template.index(SLOT) + len(self.subject)

    @property
    def neighbors(self) -> tuple[tuple[str, str], ...]:
        """Each neighborhood prompt with the answer that it expects."""
        answers = self.neighborhood_answers or (self.target_true,) * len(self.neighborhood_prompts)
        return tuple(zip(self.neighborhood_prompts, answers, strict=True))

    @classmethod
    def from_prompt(cls, prompt: str, *, subject: str, **fields: Any) -> "EditRequest":
        """Build a request from a full prompt in which ``subject`` occurs (the first occurrence is taken).

        Raises:
            RequestError: ``subject`` is not in ``prompt``.
        """
        start = prompt.find(subject) if subject else -1
        if start < 0:
            raise RequestError(
                f"request {fields.get('request_id', '')!r}: the subject {subject!r} is not in its prompt {prompt!r}; "
                "expected the prompt to contain it letter by letter (check case, accents and spaces)",
                reason="subject not in prompt",
            )
        return cls(template=prompt[:start] + SLOT + prompt[start + len(subject) :], subject=subject, **fields)

    @classmethod
    def from_counterfact(cls, record: Mapping[str, Any]) -> "EditRequest":
        """Build a request from a record in ROME's CounterFact layout.

        Raises:
            RequestError: A field is missing, or the subject is not in its prompt.
        """
        known = record if isinstance(record, Mapping) else {}
        rewrite = known.get("requested_rewrite")
        rewrite = rewrite if isinstance(rewrite, Mapping) else {}
        answers = {name: rewrite.get(name) for name in ("target_new", "target_true")}
        values = {
            "requested_rewrite.prompt": rewrite.get("prompt"),
            "requested_rewrite.subject": rewrite.get("subject") or "",
            "requested_rewrite.relation_id": rewrite.get("relation_id") or "",
            **{
                f"requested_rewrite.{name}.str": answer.get("str") if isinstance(answer, Mapping) else None
                for name, answer in answers.items()
            },
            "case_id": known.get("case_id"),
            "paraphrase_prompts": known.get("paraphrase_prompts", []),
            "neighborhood_prompts": known.get("neighborhood_prompts", []),
        }
        wrong = {name: value for name, value in values.items() if not _fits(name, value)}
        if wrong:
            raise RequestError(
                f"record {known.get('case_id', record)!r}: found {wrong}; expected CounterFact's layout: case_id, "
                "requested_rewrite {prompt, subject, target_new.str, target_true.str} with texts, paraphrase_prompts and "
                "neighborhood_prompts with lists of texts"
            )
        template, subject = values["requested_rewrite.prompt"], values["requested_rewrite.subject"]
        fields: dict[str, Any] = {
            "request_id": str(values["case_id"]),
            "target_new": values["requested_rewrite.target_new.str"],
            "target_true": values["requested_rewrite.target_true.str"],
            "relation": values["requested_rewrite.relation_id"],
            "paraphrase_prompts": tuple(values["paraphrase_prompts"]),
            "neighborhood_prompts": tuple(values["neighborhood_prompts"]),
        }
        if SLOT in template or not subject:
            return cls(template=template, subject=subject, **fields)
        return cls.from_prompt(template, subject=subject, **fields)


def _fits(name: str, value: Any) -> bool:
    """Return whether a field of a CounterFact record is of its kind."""
    if name == "case_id":
        return isinstance(value, (str, int))
    if name.endswith("_prompts"):
        return isinstance(value, (list, tuple)) and all(isinstance(text, str) and text.strip() for text in value)
    return isinstance(value, str)


def facts_with_variants(facts: Sequence[EditRequest]) -> list[list[EditRequest]]:
    """Group requests that speak of one fact: the same subject and relation (or template)."""
    groups: dict[tuple[str, str], list[EditRequest]] = {}
    for fact in facts:
        key = fact.relation or fact.template if fact.subject else fact.template
        groups.setdefault((fact.subject, key), []).append(fact)
    return list(groups.values())
