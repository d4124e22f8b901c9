"""Experiments with several models, as one experiment of each."""

from collections.abc import Sequence
from pathlib import Path

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
        "editors": [_editor(editor, name) for editor in experiment.editors],
    }
    found = experiment.model_copy(update=changes)
    found._file, found._shown = experiment._file, experiment._shown
    return found


def _layers(layers: "Layers | dict[str, Layers] | None", name: str) -> Layers | None:
    return layers.get(name) if isinstance(layers, dict) else layers


def _editor(editor: EditorSpec, name: str) -> EditorSpec:
    if editor.by_model is None:
        return editor
    given = editor.model_dump(exclude={"by_model"}, exclude_unset=True)
    return EditorSpec.model_validate(given | editor.by_model.get(name, {}))


def _check_names(experiment: Experiment, names: Sequence[str]) -> None:
    given = [(f"editors.{i}.by_model", name) for i, e in enumerate(experiment.editors) for name in e.by_model or ()]
    given += [("layers", name) for name in experiment.layers] if isinstance(experiment.layers, dict) else []
    for where, name in given:
        if name not in names:
            raise SpecError(
                f"experiment {experiment.name}: {where} names {name!r}{did_you_mean(name, names)}; expected one of its models: "
                f"{', '.join(names)}"
            )
