"""Reading an experiment file: YAML, checked as a whole, with all errors at once and their paths."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from flows.listing import EXPERIMENTS
from flows.model_axis import of_each_model
from flows.names import check_names
from flows.spec import Experiment, ModelSpec, n_errors
from flows.spec_values import SpecError, named, named_or_file
from flows.yaml_file import YamlFile, read_yaml, yaml_of
from tasks.errors import did_you_mean


def load_experiment(
    path: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any] | None = None
) -> Experiment:
    """Read and check an experiment file; paths in it are relative to it, the store to the working directory.

    Args:
        path: Of the file; or the name of an experiment of this package, as ``demo``; or what a file would say.
        overrides: Values by dotted path, as ``facts.size``.

    Raises:
        SpecError: Lists every error with its path and line.
    """
    if isinstance(path, Experiment):
        path = path.model_dump(mode="json", exclude_unset=True)
    if isinstance(path, Mapping):
        file, read = Path("experiment"), yaml_of(dict(path), "(given)")
    else:
        file = _file_of(path)
        read = read_yaml(file, "expected an experiment in YAML (palimpsest new writes one)")
    raw = read.content
    if not isinstance(raw, dict):
        raise SpecError(
            f"{read.path}: found {type(raw).__name__}; expected a table with name, model, facts, editors ..."
        )
    raw = _with_tables(raw)
    for dotted, value in (overrides or {}).items():
        _assign(raw, dotted, value)
    try:
        spec = Experiment.model_validate(_with_tables(raw))
    except ValidationError as error:
        raise SpecError(_all_errors(read, error, set(overrides or {}))) from error
    found = _with_absolute_paths(spec, file.parent)
    found._file, found._shown = read.path, read.shown
    for each in of_each_model(found):
        check_names(each)
    return found


def _file_of(path: str | Path) -> Path:
    """Return an experiment's file: the one that is given, or of this package the one that is called so."""
    given = Path(path)
    own = {each.stem: each for each in EXPERIMENTS.glob("*.yaml")}
    if (
        given.is_file()
        or (given.exists() and str(path) not in own)
        or (str(path) not in own and (given.suffix or given.parent != Path()))
    ):
        return given
    if str(path) not in own:
        raise SpecError(
            f"{path}: no such file, and no experiment of this package{did_you_mean(path, own)}; expected a YAML file, or one "
            f"of {sorted(own)}"
        )
    return own[str(path)]


def _with_tables(raw: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says, with tables where a name alone stands for one, so that values can be set in them."""
    readers = {"model": named, "facts": named_or_file("path")}
    found = raw | {key: read(raw[key]) for key, read in readers.items() if key in raw}
    for key in ("editors", "models"):
        if isinstance(raw.get(key), list):
            found[key] = [named(entry) for entry in raw[key]]
    return found


def _assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise SpecError(f"--set {dotted}: {parent!r} is not a table in this experiment")
    raw[last] = value


def _all_errors(read: YamlFile, error: ValidationError, set_: set[str]) -> str:
    lines = []
    for entry in error.errors():
        loc = [
            part
            for part in entry["loc"]
            if not str(part).startswith(("function-", "list[", "literal[", "constrained-"))
        ]
        where = ".".join(map(str, loc)) or "(top)"
        unknown = entry["type"] == "extra_forbidden"
        hint = f"unknown key{_meant(loc)}; remove it or check its spelling" if unknown else entry["msg"]
        found = "" if entry["type"] == "missing" else f" (found {entry['input']!r})"
        if isinstance(entry["input"], str) and entry["type"] in ("int_type", "float_type", "bool_type"):
            hint += ", without quotes"
        lines.append(f"  {where}: {hint}{found}{' (--set)' if where in set_ else read.shown(loc)}")
    return f"{read.path}: {n_errors(len(lines))}\n" + "\n".join(lines)


def _meant(loc: Sequence[str | int]) -> str:
    """Return which key may be meant by one that is not known, there or in another table of an experiment."""
    *parents, last = loc
    model: Any = Experiment
    for part in parents:
        model = _tables(model).get(part, model) if isinstance(part, str) else model
    fields = model.model_fields if hasattr(model, "model_fields") else {}
    if near := did_you_mean(last, fields):
        return near
    elsewhere = {
        f"{key}.{name}" for key, table in _tables(Experiment).items() for name in table.model_fields if name == last
    }
    return f" (did you mean {sorted(elsewhere)[0]!r}?)" if elsewhere else ""


def _tables(model: Any) -> dict[str, Any]:
    """Return the tables within a table of an experiment, by their keys."""
    found: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        for kind in (field.annotation, *_arguments(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[key] = kind
    return found


def _arguments(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield argument
        yield from _arguments(argument)


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

    def placed(model: ModelSpec) -> ModelSpec:
        path = base / Path(model.name).expanduser()
        name = str(path.resolve()) if path.is_dir() or path.suffix.lower() == ".gguf" else model.name
        return model.model_copy(update={"name": name, "adapter": near(model.adapter)})

    benchmarks = [
        benchmark.model_copy(
            update={
                "path": near(benchmark.path),
                "file": near(benchmark.file),
                "shots_file": near(benchmark.shots_file),
                "name": str(near(benchmark.name)) if benchmark.name.endswith(".yaml") else benchmark.name,
            }
        )
        for benchmark in spec.score.benchmarks
    ]

    def by_model(given: dict[str, Any]) -> dict[str, Any]:
        return given | {
            key: near(str(given[key])) for key in ("contexts_file", "targets") if given.get(key) is not None
        }

    editors = [
        editor.model_copy(
            update={
                "contexts_file": near(editor.contexts_file),
                "targets": near(editor.targets),
                "by_model": {name: by_model(mine) for name, mine in editor.by_model.items()}
                if editor.by_model
                else None,
            }
        )
        for editor in spec.editors
    ]
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
            "model": placed(spec.model),
            "models": None if spec.models is None else [placed(model) for model in spec.models],
            "store": spec.store if "://" in spec.store else str(Path(spec.store).expanduser().absolute()),
        }
    )
