"""A first experiment file: the grid that a question asks for, with this model's numbers, and a comment on each line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.spec import FactsSpec
from flows.spec_values import SpecError
from tasks.data.facts import load_facts
from tasks.data.model_files import known_layers
from tasks.data.record_files import is_record_file
from tasks.errors import did_you_mean
from tasks.specs.editor_card import editor_card, known_editors, suggested_layers

QUESTIONS = {
    "edit": "what becomes of these facts when they are edited, all at once",
    "batch-size": "which batch size forgets least",
    "layer": "which layer is best edited",
    "editors": "which editor keeps most of what it was taught",
    "collapse": "after how many edits the model breaks",
}
"""What a draft may ask, by name."""
_BATCHES = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Asked:
    """What an experiment file is to be about."""

    model: str
    facts: str
    """A file, or the name of a data set."""
    editors: tuple[str, ...]
    question: str
    store: str
    revision: str | None = None


def draft(asked: Asked) -> str:
    """Return the text of an experiment file.

    Raises:
        SpecError: No such editor or question, or a model whose layers cannot be known here.
        TaskError: The facts cannot be read.
    """
    if asked.question not in QUESTIONS:
        near = did_you_mean(asked.question, QUESTIONS)
        raise SpecError(f"no question {asked.question!r}{near}; expected one of {list(QUESTIONS)}")
    for name in asked.editors:
        if name not in known_editors():
            raise SpecError(
                f"no editor {name!r}{did_you_mean(name, known_editors())}; expected some of {known_editors()}"
            )
    n_facts = _n_facts(asked)
    size = min(n_facts, 200) if asked.facts == "factworld" else n_facts
    batches = _batches(asked.question, size)
    lines = [
        f"# {QUESTIONS[asked.question].capitalize()}? Written by `palimpsest new`; every key is in docs/experiment.md.",
        f"name: {_name(asked)}",
        f"model: {_model(asked)}  # a folder, a bundled model, or {{name: HUB-ID, revision: COMMIT}}",
        *_facts(asked, n_facts, size),
        "editors:",
        *(line for name in asked.editors for line in _editor(asked, name)),
        f"batch_sizes: {batches}  # facts written by one update",
        *_scores(asked.question, size),
    ]
    if asked.facts != "factworld" and any("second_moment" in _card(asked, name).needs for name in asked.editors):
        lines += [
            "second_moment:  # of the layers' keys over texts, which these editors keep as they are",
            "  texts: self  # sampled by the model; better: path: wikipedia.txt, or hub: (docs/own-model.md)",
            "  n_texts: 1000",
        ]
    lines += [f"store: {asked.store}  # tables as Parquet; run it again to resume, or to go further"]
    return "\n".join(lines) + "\n"


def _n_facts(asked: Asked) -> int:
    name, path = ("columns", asked.facts) if is_record_file(asked.facts) else (asked.facts, None)
    spec = FactsSpec(name=name, path=path)
    return len(load_facts(spec.name, path=spec.path, model=asked.model).requests)


def _name(asked: Asked) -> str:
    model = Path(asked.model).name
    return f"{asked.question}-{''.join(c if c.isalnum() or c in '._-' else '-' for c in model)}"


def _model(asked: Asked) -> str:
    return asked.model if asked.revision is None else f"{{name: {asked.model}, revision: {asked.revision}}}"


def _facts(asked: Asked, n_facts: int, size: int) -> list[str]:
    if is_record_file(asked.facts):
        return [f"facts: {asked.facts}  # all {n_facts}; `palimpsest facts FILE` shows what is understood of them"]
    return [f"facts: {{name: {asked.facts}, size: {size}}}  # of {n_facts}; samples: 3 repeats it over other orders"]


def _batches(question: str, size: int) -> list[int]:
    if question == "batch-size":
        found = [batch for batch in _BATCHES if batch <= size]
        return found if len(found) > 1 else sorted({1, size})
    if question == "collapse":
        return [1]
    return [size if question == "edit" else max(1, min(10, size))]


def _scores(question: str, size: int) -> list[str]:
    every = {"edit": size, "collapse": max(1, size // 20)}.get(question, max(1, size // 4))
    return [
        "score:",
        f"  every_edits: {every}  # checkpoints: earlier edits are scored again, so that forgetting shows",
        "  retention: all",
        "  # benchmarks: [{file: questions.jsonl}]  # your own: question, choices, answer; or `palimpsest list benchmarks`",
    ]


def _editor(asked: Asked, name: str) -> list[str]:
    card, (layers, why) = _card(asked, name), _layers(asked, name)
    own = f"  - name: {name}"
    lines = [own]
    if asked.question == "layer":
        lines.append(f"    layers: {_every_layer(asked, layers)}  # one run for each")
    else:
        lines.append(f"    layers: {layers}  # {why}")
    if card.max_batch is not None:
        lines.append(f"    batch_sizes: [{card.max_batch}]  # it takes no more at a time")
    numbers = {key: value for key, value in card.hparams.items() if key != "protocol"}
    if numbers:
        lines.append(f"    # its numbers for this model, any of which can stand here: {_flow(numbers)}")
    return lines


def _flow(numbers: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(numbers, default_flow_style=True, width=10_000, sort_keys=False).strip()


def _card(asked: Asked, name: str) -> Any:
    return editor_card(name, model=asked.model, protocol="corrected", overrides={})


def _layers(asked: Asked, name: str) -> tuple[list[list[int]] | list[int], str]:
    """Return an editor's layers as a file has them, and where they come from."""
    n_layers = known_layers(asked.model)
    layers, why = suggested_layers(name, asked.model, n_layers)
    if layers is None:
        raise SpecError(
            f"model {asked.model!r} is not on this machine and no source names layers of it for {name}; give the folder of the "
            "model, or write the file by hand (docs/own-model.md)"
        )
    return [layers] if len(layers) > 1 else layers, why


def _every_layer(asked: Asked, layers: Sequence[Any]) -> list[int]:
    n_layers = known_layers(asked.model)
    return list(range(n_layers)) if n_layers is not None else [each for each in layers if isinstance(each, int)]
