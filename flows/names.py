"""What can be told of an experiment in milliseconds: names, files and layers, looked up before anything heavy is imported."""

from collections.abc import Iterator
from pathlib import Path

from flows.spec import EditorSpec, Experiment, errors_of
from tasks.benchmarks.harness import PREFIX
from tasks.data.model_files import known_layers
from tasks.errors import InputError
from tasks.specs.editor_card import hparams_problem, layers_problem, suggested_layers


def check_names(experiment: Experiment) -> None:
    """Refuse names that nothing has, files that are not there, and layers and batches that cannot be.

    Raises:
        SpecError: Lists all of them.
    """
    problems = [*_editors(experiment), *_files(experiment), *_benchmarks(experiment)]
    if problems:
        raise errors_of(experiment, problems)


def _editors(experiment: Experiment) -> Iterator[str]:
    n_layers, size = known_layers(experiment.model.name), experiment.facts.size
    for index, spec in enumerate(experiment.editors):
        why = hparams_problem(spec.name, experiment.model.name, experiment.protocol, spec.hparams, spec.preset)
        if why is not None:
            yield f"editors.{index}: {why}"
        if why is None and spec.layers is None and experiment.layers is None:
            layers, where = suggested_layers(spec.name, experiment.model.name, n_layers)
            near = f", as layers: {[layers] if len(layers) > 1 else layers} ({where})" if layers else ""
            yield f"editors.{index}: no layers; give them here, or for all editors{near}"
        for layers in _layer_sets(experiment, spec):
            if n_layers is not None and (why := layers_problem(layers, n_layers, experiment.model.name)) is not None:
                yield f"{f'editors.{index}.layers' if spec.layers is not None else 'layers'}: {why}"
        for batch_size in spec.batch_sizes or experiment.batch_sizes:
            if isinstance(size, int) and batch_size > size:
                where = f"editors.{index}.batch_sizes" if spec.batch_sizes else "batch_sizes"
                yield f"{where}: batch size {batch_size} with facts.size {size} gives no full batch"


def _layer_sets(experiment: Experiment, spec: EditorSpec) -> list[list[int]]:
    chosen = spec.layers if spec.layers is not None else experiment.layers
    if chosen is None or isinstance(chosen, str | dict):
        return []  # which it will be is not known yet
    return [entry if isinstance(entry, list) else [entry] for entry in chosen]


def _files(experiment: Experiment) -> Iterator[str]:
    from tasks.data.facts import check_dataset

    facts = experiment.facts
    try:
        check_dataset(facts.name, path=facts.path, hub=facts.hub)
    except InputError as error:
        yield f"facts: {error}"
    for where, path in (
        ("facts.path", facts.path),
        ("facts.order", facts.order),
        ("facts.completions", facts.completions),
        ("second_moment.path", None if experiment.second_moment.hub else experiment.second_moment.path),
        ("model.adapter", experiment.model.adapter),
    ):
        if path is not None and not Path(path).exists():
            yield f"{where}: file {path} does not exist; check the path (it is relative to the YAML file)"


def _benchmarks(experiment: Experiment) -> Iterator[str]:
    from tasks.benchmarks.questions import definition_of

    for index, spec in enumerate(experiment.score.benchmarks):
        if spec.name.startswith(PREFIX):
            continue
        try:
            definition_of(spec.name, spec.file)
        except InputError as error:
            yield f"score.benchmarks.{index}: {error}"
