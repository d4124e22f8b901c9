"""Any task of lm-evaluation-harness, asked of the model as it stands; an optional extra (the package lm-eval)."""

import difflib
import importlib.metadata
import json
import logging
import numbers
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.errors import TokenizationError
from storage.digests import digest_of, digest_of_file
from tasks.benchmarks.definition import definition_names
from tasks.errors import InputError

if TYPE_CHECKING:
    from editing.model.heads import Ids
    from editing.model.lm import LanguageModel

_log = logging.getLogger(__name__)
BORDER_VERSION = 2
"""Raised when answers of the harness's tasks change meaning or value; part of what names their questions.  2: a choice that a
token joins to its question is tokenised by itself."""
PREFIX = "lm-eval:"
"""Before a task's name, where benchmarks are named."""


def harness_recipe(name: str, *, include: str | None, shots: int | None) -> tuple[dict[str, Any], int]:
    """Return what determines a task's questions, and how many there are.

    Args:
        name: The task's, without prefix.
        include: A folder of task definitions of one's own.

    Raises:
        InputError: The extra is missing, there is no such single task, its data cannot be had, or it runs programs.
    """
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"{PREFIX}{name} needs lm-evaluation-harness; run: pip install 'lm-eval>=0.4.13,<0.5'"
        ) from error
    task = _task(name, include)
    if getattr(task, "UNSAFE_CODE", False):
        raise InputError(f"{PREFIX}{name} runs programs outside of any sandbox; use the benchmark mbpp instead")
    docs = list(task.eval_docs)
    recipe = {
        "task": name,
        "version": version,
        "shots": int(task.config.num_fewshot or 0) if shots is None else shots,
        "docs": digest_of(json.loads(json.dumps(docs, default=str))),
        "border": BORDER_VERSION,
        "own": _digest_of_folder(include) if include else None,
        "include": include,
    }
    return recipe, len(docs)


def harness_id(recipe: Mapping[str, Any]) -> str:
    """Return the name of a task's questions: by content, wherever its definition stands."""
    return f"questions-{digest_of({key: value for key, value in recipe.items() if key != 'include'})}"


def _digest_of_folder(folder: str) -> str:
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".yaml", ".py"))
    return digest_of({path.relative_to(folder).as_posix(): digest_of_file(path) for path in files})


def _task(name: str, include: str | None) -> Any:
    manager = _manager(include)
    if name not in manager.all_subtasks:
        raise InputError(f"lm-evaluation-harness has no single task {name!r}; {_instead(manager, name)}")
    try:
        (task,) = manager.load([name])["tasks"].values()
    except Exception as error:
        raise InputError(
            f"lm-evaluation-harness did not load {name!r} ({error}); check its data set, or the network"
        ) from error
    return task


def _instead(manager: Any, name: str) -> str:
    """Return which tasks somebody may have meant: those of a group of that name, else those that are called alike."""
    if name in [*manager.all_groups, *manager.all_tags]:
        single = sorted(task for task in manager.all_subtasks if task.startswith(f"{name}_"))
        some = f", as {', '.join(map(repr, single[:3]))}" if single else ""
        also = f"; or the benchmark {name!r} of `palimpsest list benchmarks`" if name in definition_names() else ""
        return f"it is a group of tasks; name {'one' if single else 'a single one'} of them{some}{also}"
    near = difflib.get_close_matches(name, manager.all_subtasks, n=5)
    return f"near it: {near}" if near else "`lm-eval ls tasks` lists them"


@cache
def _manager(include: str | None) -> Any:
    """Return the index of all tasks, whose reading takes seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=include)


def harness_rows(lm: "LanguageModel", recipe: Mapping[str, Any], asked: range) -> list[dict[str, Any]]:
    """Ask some of a task's questions; its first metric under its first filter is the answer's value."""
    from lm_eval import simple_evaluate

    name, adapter = recipe["task"], _adapter(lm)
    found = simple_evaluate(
        model=adapter,
        tasks=[name],
        num_fewshot=recipe["shots"],
        # From the first on: the harness draws shots one question after another.
        samples={name: list(range(asked.stop))},
        task_manager=_manager(recipe["include"]),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = found["samples"][name]
    return [
        _row(sample, adapter.outcomes.get(sample["doc_id"]))
        for sample in samples
        if sample["filter"] == samples[0]["filter"] and sample["doc_id"] in asked
    ]


def _row(sample: Mapping[str, Any], lost: str | None) -> dict[str, Any]:
    metrics = {key: float(sample[key]) for key in sample["metrics"] if isinstance(sample[key], numbers.Real)}
    value = 0.0 if lost else next(iter(metrics.values()), float("nan"))
    responses = [response for responses in sample["resps"] for response in responses]
    scored = [response for response in responses if isinstance(response, (list, tuple))]
    return {
        "subset": "",
        "example_id": f"{sample['doc_id']:06d}",
        "labels": [],
        "gold": str(sample["target"]),
        "predicted": None,
        "correct": value == 1,
        "value": value,
        "outcome": lost or ("nan" if value != value else "answered"),
        "detail": json.dumps(metrics, sort_keys=True),
        "label_nlls": [-float(response[0]) for response in scored],
        "label_tokens": [],
        "text": str(responses[0]) if responses and not scored else None,
        "n_prompt_tokens": None,
    }


def _adapter(lm: "LanguageModel") -> Any:
    """Return the model as the harness asks models."""
    from lm_eval.api.model import LM

    class Adapter(LM):
        def __init__(self) -> None:
            super().__init__()
            self.outcomes: dict[int, str] = {}
            """Of documents by number: some request exceeds the context (nothing is cut), has a choice without tokens that
            tokenizer and model know, or is answered by NaN."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            pairs = [_pair(lm, request, self.outcomes) for request in requests]
            asked = [pair for pair in pairs if pair is not None]
            scores = iter(lm.score_ids([head for head, _ in asked], [tail for _, tail in asked]))
            lost = (float("-inf"), False)
            return [(-(score := next(scores)).nll_sum, score.correct) if pair else lost for pair in pairs]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [_rolling(lm, request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [self._written(request) for request in requests]

        def _written(self, request: Any) -> str:
            prompt, settings = request.args
            (head,) = lm.prompt_ids([prompt])
            n_tokens = int(settings.get("max_gen_toks", 256))
            if not _fits(lm, request, len(head) + n_tokens, self.outcomes):
                return ""
            text = _written(lm, prompt, settings, n_tokens)
            if text is None:
                self.outcomes[request.doc_id] = "nan"
            return text or ""

    return Adapter()


def _pair(lm: "LanguageModel", request: Any, outcomes: dict[int, str]) -> "tuple[Ids, Ids] | None":
    """Return the ids of a question and of a choice; None, with the outcome, if the choice cannot be scored."""
    try:
        head, tail = lm.format.continuation(*request.args)
    except TokenizationError as error:
        outcomes[request.doc_id] = "no_tokens"
        _log.warning("%s, question %s: %s", request.task_name, request.doc_id, error)
        return None
    return (head, tail) if _fits(lm, request, len(head) + len(tail), outcomes) else None


def _fits(lm: "LanguageModel", request: Any, n_tokens: int, outcomes: dict[int, str]) -> bool:
    if lm.context_tokens is None or n_tokens <= lm.context_tokens:
        return True
    outcomes[request.doc_id] = "too_long"
    return False


def _rolling(lm: "LanguageModel", text: str) -> float:
    """Return a text's log-likelihood, in windows of the context that do not overlap, each after the start token."""
    start, ids = lm.format.plain("")[:1], lm.format.plain(text)
    body = ids[1:] if ids[:1] == start else ids
    size = (lm.context_tokens or len(body)) - 1
    parts = [body[at : at + size] for at in range(0, len(body), max(size, 1))]
    return -sum(score.nll_sum for score in lm.score_ids([start] * len(parts), parts))


def _written(lm: "LanguageModel", prompt: str, settings: Mapping[str, Any], n_tokens: int) -> str | None:
    if settings.get("do_sample") and settings.get("temperature", 1.0) != 0:
        raise InputError(f"the task draws its answers ({dict(settings)}); expected one that takes the likeliest tokens")
    until = settings.get("until") or []
    marks = [until] if isinstance(until, str) else list(until)
    return lm.continue_greedily([prompt], n_tokens, until=marks)[0]
