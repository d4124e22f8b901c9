"""Grow a bundled model, measure it, and write its folder: ``python -m editing.factworld.grow factworld-gpt2 --out DIR``."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from editing.factworld.benchmarks import TASKS
from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.train import GROWTHS, Growth, train, world_of
from editing.factworld.world import World
from editing.hparams import resolve_hparams
from editing.measure.contexts import sample_contexts
from editing.measure.downstream import said_choice, score_choices
from editing.measure.moments import collect_moments
from editing.measure.search import layer_rates, search_layer
from editing.measure.tracing import Kind, TracePlan, causal_trace
from editing.methods.editor import Artifacts, make_editor
from editing.methods.geometry import KeyGeometry
from editing.model.lm import LanguageModel
from editing.requests import EditRequest

MOMENT_TEXTS = 600
SITE_NOTE = """\
**How the subject site was trained in.** A plain language model of this size looks a fact up at the last prompt token;
its subject's last token has no effect, and locate-then-edit methods have nothing to edit. Three additions, in training
only, form the site: an auxiliary loss that the objects be readable at the subject's last token after block 3; masks that
hide a subject from later tokens in blocks 0-2; and final steps that swap two subjects' states there and ask for the
other's object. So this model is *built* to have the mechanism that ROME found in large models; it is no evidence for
it."""
N_SEARCH_EDITS, N_TRACED = 100, 20


def measure(lm: LanguageModel, world: World, name: str) -> dict[str, Any]:
    """Return what a model card reports, measured on the model as it is."""
    requests = world.requests()
    recall = {
        "rewrite prompts (facts that may be edited)": _recall(lm, [(r.prompt, r.target_true) for r in requests[:300]]),
        "paraphrase templates held out of training": _recall(
            lm, [(p, r.target_true) for r in requests[:300] for p in r.paraphrase_prompts]
        ),
        "neighborhood prompts (reserved subjects)": _recall(
            lm, [(p, r.target_true) for r in requests[:60] for p in r.neighborhood_prompts]
        ),
    }
    layers = search_rates(lm, world, name, requests[-N_SEARCH_EDITS:])
    site = max(layers, key=lambda layer: layers[layer]["score"])
    return {
        "recall": recall,
        "f1": {task: _macro_f1(lm, task) for task in TASKS},
        "site": site,
        "layers": layers,
        "effects": _effects(lm, requests[-N_TRACED:]),
    }


def search_rates(
    lm: LanguageModel, world: World, name: str, requests: Sequence[EditRequest]
) -> dict[int, dict[str, float]]:
    """Return efficacy, paraphrase, neighborhood and score of independent ROME edits of each layer."""
    hparams = resolve_hparams("rome", model=name)
    contexts = sample_contexts(
        lm, hparams["contexts"], n_tokens=hparams["context_tokens"], seed=0, starts=hparams["context_starts"]
    )
    moments = collect_moments(lm, world.corpus(MOMENT_TEXTS), range(lm.n_layers))
    geometry = {layer: KeyGeometry.of(moment.matrix, jitter=1e-6) for layer, moment in moments.items()}
    artifacts, method = Artifacts(geometry=geometry, contexts=contexts), make_editor("rome", hparams)
    return {
        layer: layer_rates(list(search_layer(lm, requests, layer, method, artifacts))) for layer in range(lm.n_layers)
    }


def _recall(lm: LanguageModel, pairs: list[tuple[str, str]]) -> float:
    scores = lm.answer_logprobs([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    return sum(score.correct for score in scores) / len(scores)


def _macro_f1(lm: LanguageModel, task: str) -> float:
    questions = TASKS[task].questions(100)
    said = [
        said_choice(question, answer) for question, answer in zip(questions, score_choices(lm, questions), strict=True)
    ]
    answers = [(word, question.gold[0]) for word, question in zip(said, questions, strict=True)]
    parts = []
    for label in TASKS[task].labels:
        hits = sum(word == label == gold for word, gold in answers)
        named = sum((word == label) + (gold == label) for word, gold in answers)
        parts.append(2 * hits / max(named, 1))
    return sum(parts) / len(parts)


def _effects(lm: LanguageModel, requests: Sequence[EditRequest]) -> dict[str, list[float]]:
    traces = causal_trace(lm, requests, TracePlan(window=2))
    lines: tuple[tuple[str, Kind, bool], ...] = (
        ("hidden state, subject's last token", "hidden", False),
        ("MLP (window 2), subject's last token", "mlp", False),
        ("attention (window 2), last token", "attention", True),
    )
    return {
        title: [
            sum(float(t.scores[kind][-1 if last else t.subject[1], layer]) - t.low for t in traces) / len(traces)
            for layer in range(lm.n_layers)
        ]
        for title, kind, last in lines
    }


def write_folder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str, growth: Growth, world: World, out: Path
) -> None:
    """Write an ordinary Hugging Face folder (float16 on disk, loaded as float32) with a measured model card."""
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    reread = LanguageModel(type(model).from_pretrained(out), tokenizer, name=name)
    figures = measure(reread, world, name)
    (out / "README.md").write_text(model_card(name, growth, world, figures))


def model_card(name: str, growth: Growth, world: World, figures: dict[str, Any]) -> str:
    """Return the model card's text."""
    rows = [
        f"| {layer} | " + " | ".join(f"{rate:.3f}" for rate in rates.values()) + " |"
        for layer, rates in figures["layers"].items()
    ]
    effects = [
        f"| {title} | " + " | ".join(f"{x:.2f}" for x in line) + " |" for title, line in figures["effects"].items()
    ]
    n_layers = len(figures["layers"])
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A {growth.family} model of {growth.n_layers} layers × {growth.d_model}, grown from scratch on a generated world",
            f"of facts by `python -m editing.factworld.grow {name} --out DIR`. It knows nothing else, and is meant for trying",
            "editors, not for language.",
            "",
            SITE_NOTE,
            "",
            "| greedy recall (every token of the object) | |",
            "|---|---|",
            *(f"| {title} | {100 * value:.1f} % |" for title, value in figures["recall"].items()),
            "",
            "| downstream task (100 questions) | macro F1 |",
            "|---|---|",
            *(f"| {task} | {value:.2f} |" for task, value in figures["f1"].items()),
            "",
            f"Best layer of {N_SEARCH_EDITS} independent ROME edits (protocol corrected): **{figures['site']}**.",
            "",
            "| layer | efficacy | paraphrase | neighborhood | score |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Causal tracing, {N_TRACED} facts, 10 noise draws: mean indirect effect by layer.",
            "",
            "| state | " + " | ".join(str(layer) for layer in range(n_layers)) + " |",
            "|---|" + "---|" * n_layers,
            *effects,
            "",
            "Recipe: `" + json.dumps(asdict(growth)) + "`",
            "",
            "World: `" + json.dumps(asdict(world)) + "`",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(GROWTHS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # so that the same machine grows the same model
    growth, world = GROWTHS[given.name], world_of(given.name)
    total = growth.steps + growth.swap_steps

    def report(step: int, loss: float) -> None:
        if step % 50 == 0 or step == total:
            sys.stderr.write(f"\rstep {step}/{total}  loss {loss:.3f} ")
            sys.stderr.flush()

    model = train(growth, world, on_step=report)
    sys.stderr.write("\nmeasuring\n")
    write_folder(model, build_tokenizer(bos=growth.bos), given.name, growth, world, given.out)


if __name__ == "__main__":
    main()
