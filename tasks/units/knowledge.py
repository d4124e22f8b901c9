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
    every: int = 1
    """Of so many facts the first is asked; the others count as not known."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {
            **self.model.identity,
            "facts": self.facts_digest,
            "text_tokens": TEXT_TOKENS,
            "version": VERSION,
            **({"every": self.every} if self.every > 1 else {}),
        }

    @property
    def n_asked(self) -> int:
        return len(range(0, self.n_facts, self.every))

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
                stop=min(start + self.per_unit * self.every, self.n_facts),
                every=self.every,
            )
            for start in range(0, self.n_facts, self.per_unit * self.every)
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
    every: int = 1

    @property
    def unit_id(self) -> str:
        return f"facts-{self.start:06d}-{self.stop:06d}"

    @property
    def n_items(self) -> int:
        return len(self._places)

    @property
    def _places(self) -> range:
        return range(self.start, self.stop, self.every)

    def do(self, bench: Bench) -> Done:
        from editing.measure.knowledge import ask_facts

        known = bench.facts(self.facts_run_id)
        facts = [known[place] for place in self._places]
        answers = ask_facts(bench.pristine(self.model), facts, text_tokens=TEXT_TOKENS)
        rows = [
            {
                "model": self.model.name,
                "facts_run_id": self.facts_run_id,
                "position": position,
                "fact_id": fact.request_id,
                **(answer._asdict() if answer is not None else {}),
            }
            for position, fact, answer in zip(self._places, facts, answers, strict=True)
        ]
        record = KnowRecord(facts_run_id=self.facts_run_id, first=self.start, last=self.stop, text_tokens=TEXT_TOKENS)
        return Done({"asked_facts": rows}, record)
