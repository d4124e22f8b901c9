"""Experiments with several models, as one experiment of each."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from flows.spec import EditorSpec, Experiment, ModelSpec
from flows.spec_values import Layers, SpecError
from tasks.errors import did_you_mean


def of_each_model(experiment: Experiment) -> list[Experiment]:
    """Return the experiment of each model: with its layers, and its editors' hyper-parameters.

    Raises:
        SpecError: Something is given for a model that the experiment does not have, or two models have one name.
    """
    models = experiment.models or [experiment.model]
    names = [short_name(model) for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SpecError(
            f"experiment {experiment.name}: two models are called {sorted(twice)[0]!r}; expected different ones"
        )
    _check_names(experiment, names)
    if len(models) > 1:
        _check_shared(experiment)
    return [_of(experiment, model) for model in models]


def short_name(model: ModelSpec) -> str:
    """Return what a model is called in an experiment file: the last part of its name."""
    return Path(model.name).name


def _of(experiment: Experiment, model: ModelSpec) -> Experiment:
    name = short_name(model)
    changes = {
        "model": model,
        "models": None,
        "layers": _layers(experiment.layers, name),
        "editors": [_editor(experiment, i, name) for i in range(len(experiment.editors))],
    }
    found = experiment.model_copy(update=changes)
    found._file, found._shown = experiment._file, experiment._shown
    return found


def _layers(layers: "Layers | dict[str, Layers] | None", name: str) -> Layers | None:
    return layers.get(name) if isinstance(layers, dict) else layers


def _editor(experiment: Experiment, number: int, name: str) -> EditorSpec:
    editor = experiment.editors[number]
    if editor.by_model is None:
        return editor
    mine, where = editor.by_model.get(name, {}), ("editors", number, "by_model", name)
    problems = [
        f"  {'.'.join(map(str, where))}.{key}: an editor's own key; expected layers, preset, hyper-parameters ..."
        for key in ("name", "by_model")
        if key in mine
    ]
    given = editor.model_dump(exclude={"by_model"}, exclude_unset=True)
    try:
        if not problems:
            return EditorSpec.model_validate(given | mine)
    except ValidationError as error:
        for entry in error.errors():
            place = ".".join(map(str, (*where, *entry["loc"])))
            problems.append(f"  {place}: {entry['msg']} (found {entry['input']!r})")
    raise SpecError(f"experiment {experiment.name}:\n" + "\n".join(problems))


def _check_shared(experiment: Experiment) -> None:
    """Refuse what is one model's where there are several."""
    for number, editor in enumerate(experiment.editors):
        if editor.targets is not None:
            raise SpecError(
                f"experiment {experiment.name}: editors.{number}.targets belong to one model, and there are several; give them "
                f"as editors.{number}.by_model.MODEL.targets"
            )
    if experiment.second_moment.files:
        raise SpecError(
            f"experiment {experiment.name}: second_moment.files belong to one model, and there are several; expected texts "
            "(each model's are then its own), or an experiment for each model"
        )


def _check_names(experiment: Experiment, names: Sequence[str]) -> None:
    given = [(f"editors.{i}.by_model", name) for i, e in enumerate(experiment.editors) for name in e.by_model or ()]
    given += [("layers", name) for name in experiment.layers] if isinstance(experiment.layers, dict) else []
    for where, name in given:
        if name not in names:
            raise SpecError(
                f"experiment {experiment.name}: {where} names {name!r}{did_you_mean(name, names)}; expected one of its models: "
                f"{', '.join(names)}"
            )
