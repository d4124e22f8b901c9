"""Free texts about facts' subjects at a checkpoint, with their n-gram entropy and repetition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks.specs.run import RunSpec
from tasks.units.fluency import ngram_entropy, repetition
from tasks.units.score import CheckpointScore
from tasks.units.unit import Bench, Done


@dataclass(frozen=True, kw_only=True)
class Generation(CheckpointScore):
    """What the model writes about the subjects of the sample's first facts."""

    kind: ClassVar[str] = "generation"
    cost_per_item: ClassVar[float] = 0.3

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str:
        return cls.recipe_with(cls.settings_of(run) or {})

    @property
    def n_items(self) -> int:
        return int(self.settings["prompts"])

    def do(self, bench: Bench) -> Done:
        settings = self.settings
        facts = bench.order(self.run)[: self.run.facts.size][: self.n_items]
        prompts = [fact.generation_prompts[0] if fact.generation_prompts else fact.prompt for fact in facts]
        lm = bench.at(self.run, self.rounds)
        texts = lm.write_freely(prompts, settings["tokens"], top_k=settings["top_k"], seed=settings["seed"])
        rows = [
            {**self.columns, "fact_id": fact.request_id, "prompt": prompt, **_text_columns(text, settings)}
            for fact, prompt, text in zip(facts, prompts, texts, strict=True)
        ]
        return Done({"generations": rows}, self.record)


def _text_columns(text: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a text is, and how it runs; NULL where the model gave NaN."""
    return {
        "text": text,
        "n_tokens": settings["tokens"],
        "entropy": None if text is None else ngram_entropy(text),
        "repetition": None if text is None else repetition(text),
        "top_k": settings["top_k"],
        "seed": settings["seed"],
    }
