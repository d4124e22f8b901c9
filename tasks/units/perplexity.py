"""The likelihood of held-out texts at a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.specs.run import RunSpec
from tasks.units.fact_scores import finite
from tasks.units.sampled_texts import kept_texts
from tasks.units.score import CheckpointScore
from tasks.units.unit import Bench, Done


@dataclass(frozen=True, kw_only=True)
class Perplexity(CheckpointScore):
    """The NLL of each text, cut to the wanted length, from its second token on."""

    kind: ClassVar[str] = "perplexity"
    cost_per_item: ClassVar[float] = 0.02

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str:
        return cls.recipe_with(cls.settings_of(run) or {})

    @property
    def n_items(self) -> int:
        return int(self.settings["n_texts"])

    def do(self, bench: Bench) -> Done:
        from tasks.data.corpora import corpus_texts

        source = self.settings["texts"]
        if source["name"] == "own":
            texts: Sequence[str] = kept_texts(bench.store, self.model.identity, source)
        else:
            texts = corpus_texts(bench.store, source, self.settings["files"])
        lm = bench.at(self.run, self.rounds)
        limit = min((n for n in (self.settings["max_tokens"], lm.context_tokens) if n is not None), default=None)
        ids = [lm.format.plain(text)[:limit] for text in texts]
        kept = [(number, row) for number, row in enumerate(ids) if len(row) > 1]
        scores = lm.score_ids([row[:1] for _, row in kept], [row[1:] for _, row in kept])
        rows = [
            {
                **self.columns,
                "text_id": f"text-{number:06d}",
                "nll": finite(score.nll_sum),
                "n_tokens": score.n_tokens,
                "max_tokens": limit,
            }
            for (number, _), score in zip(kept, scores, strict=True)
        ]
        return Done({"text_nlls": rows}, self.record)
