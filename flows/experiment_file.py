"""Reading an experiment file: YAML, checked as a whole, with all errors at once and their paths."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.spec import Experiment, SpecError, named


def load_experiment(path: str | Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """Read and check an experiment file; paths in it are relative to it, the store to the working directory.

    Args:
        overrides: Values by dotted path, as ``facts.size``.

    Raises:
        SpecError: Lists every error with its path.
    """
    file = Path(path)
    if not file.exists():
        raise SpecError(f"{path}: no such file; expected an experiment in YAML (see `palimpsest list experiments`)")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path}: not YAML: {error}; expected an experiment (see `palimpsest list experiments`)"
        ) from error
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: found {type(raw).__name__}; expected a table with name, model, facts, editors ...")
    raw |= {key: named(raw[key]) for key in ("model", "facts") if key in raw}
    for dotted, value in (overrides or {}).items():
        _assign(raw, dotted, value)
    raw |= {key: named(raw[key]) for key in ("model", "facts") if key in raw}
    if isinstance(raw.get("editors"), list):
        raw["editors"] = [named(entry) for entry in raw["editors"]]
    try:
        spec = Experiment.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_all_errors(path, error)) from error
    found = _with_absolute_paths(spec, file.parent)
    found._file = str(path)
    return found


def _assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise SpecError(f"--set {dotted}: {parent!r} is not a table in this experiment")
    raw[last] = value


def _all_errors(path: str | Path, error: ValidationError) -> str:
    lines = []
    for entry in error.errors():
        where = ".".join(str(part) for part in entry["loc"]) or "(top)"
        hint = "unknown key; remove it or check its spelling" if entry["type"] == "extra_forbidden" else entry["msg"]
        found = "" if entry["type"] == "missing" else f" (found {entry['input']!r})"
        lines.append(f"  {where}: {hint}{found}")
    return f"{path}: {len(lines)} errors\n" + "\n".join(lines)


def _with_absolute_paths(spec: Experiment, base: Path) -> Experiment:
    def near(path: str | None) -> str | None:
        return None if path is None else str((base / Path(path).expanduser()).resolve())

    facts = spec.facts.model_copy(
        update={
            **{key: near(getattr(spec.facts, key)) for key in ("path", "completions", "order")},
            "name": str(near(spec.facts.name)) if spec.facts.name.endswith(".yaml") else spec.facts.name,
        }
    )
    files = {layer: str(near(path)) for layer, path in (spec.second_moment.files or {}).items()} or None
    moments = spec.second_moment.model_copy(update={"path": near(spec.second_moment.path), "files": files})
    folder = base / Path(spec.model.name).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else spec.model.name
    benchmarks = [
        benchmark.model_copy(
            update={
                "path": near(benchmark.path),
                "shots_file": near(benchmark.shots_file),
                "name": str(near(benchmark.name)) if benchmark.name.endswith(".yaml") else benchmark.name,
            }
        )
        for benchmark in spec.score.benchmarks
    ]
    editors = [editor.model_copy(update={"contexts_file": near(editor.contexts_file)}) for editor in spec.editors]
    search = spec.locate.search
    if search is not None:
        search = search.model_copy(update={"contexts_file": near(search.contexts_file)})
    perplexity = spec.score.perplexity
    if perplexity is not None:
        perplexity = perplexity.model_copy(update={"path": near(perplexity.path)})
    return spec.model_copy(
        update={
            "score": spec.score.model_copy(update={"benchmarks": benchmarks, "perplexity": perplexity}),
            "facts": facts,
            "editors": editors,
            "locate": spec.locate.model_copy(update={"search": search}),
            "second_moment": moments,
            "model": spec.model.model_copy(update={"name": name, "adapter": near(spec.model.adapter)}),
            "store": spec.store if "://" in spec.store else str(Path(spec.store).expanduser().absolute()),
        }
    )
