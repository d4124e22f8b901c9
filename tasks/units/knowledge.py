"""What the unedited model knows of a data set, asked before any edit, a unit for some facts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
from tasks.specs.run import ModelRef
from tasks.units.unit import Bench, Done, Preparation, Record

Rule = Literal["first_token", "all_tokens", "free_text"]
"""When a fact is known: greedily by its first token, by every token, or where the model's free text contains the answer."""
RULES: tuple[Rule, ...] = get_args(Rule)
TEXT_TOKENS = 16
"""That the model writes behind each prompt."""
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class KnowledgeJob:
    """The questions that a model is asked before it is edited."""

    model: ModelRef
    facts_run_id: str
    facts_digest: str
    n_facts: int
    threads: int
    per_unit: int = 128

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {
            **self.model.identity,
            "facts": self.facts_digest,
            "text_tokens": TEXT_TOKENS,
            "version": VERSION,
        }

    @property
    def run_id(self) -> str:
        return f"know-{digest_of(self.recipe, length=10)}"

    def units(self) -> list["Know"]:
        return [
            Know(
                run_id=self.run_id,
                model=self.model,
                threads=self.threads,
                facts_run_id=self.facts_run_id,
                start=start,
                stop=min(start + self.per_unit, self.n_facts),
            )
            for start in range(0, self.n_facts, self.per_unit)
        ]

    def is_done(self, store: Store) -> bool:
        """Return whether every fact has been asked."""
        done = store.committed(self.run_id)
        return all(unit.unit_id in done for unit in self.units())

    def known(self, store: Store, rule: Rule) -> frozenset[int]:
        """Return the places of the facts that the model knows by a rule."""
        sql = f"SELECT position FROM knowledge WHERE run_id = '{self.run_id}' AND {rule}"
        return frozenset(int(row["position"]) for row in query(store, sql).to_pylist())


@dataclass(frozen=True, kw_only=True)
class KnowRecord(Record):
    """Which facts were asked."""

    facts_run_id: str
    first: int
    last: int
    text_tokens: int


@dataclass(frozen=True, kw_only=True)
class Know(Preparation):
    """Some facts, asked."""

    kind: ClassVar[str] = "know"
    cost_per_item: ClassVar[float] = 0.05
    facts_run_id: str
    start: int
    stop: int

    @property
    def unit_id(self) -> str:
        return f"facts-{self.start:06d}-{self.stop:06d}"

    @property
    def n_items(self) -> int:
        return self.stop - self.start

    def do(self, bench: Bench) -> Done:
        from editing.measure.knowledge import ask_facts

        facts = bench.facts(self.facts_run_id)[self.start : self.stop]
        answers = ask_facts(bench.pristine(self.model), facts, text_tokens=TEXT_TOKENS)
        rows = [
            {
                "model": self.model.name,
                "facts_run_id": self.facts_run_id,
                "position": position,
                "fact_id": fact.request_id,
                **(answer._asdict() if answer is not None else {}),
            }
            for position, (fact, answer) in enumerate(zip(facts, answers, strict=True), start=self.start)
        ]
        record = KnowRecord(facts_run_id=self.facts_run_id, first=self.start, last=self.stop, text_tokens=TEXT_TOKENS)
        return Done({"asked_facts": rows}, record)
