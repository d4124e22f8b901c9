"""Plans of models whose weights are not here: what they would cost, by their configs alone."""

from flows.spec import Experiment, ModelSpec


def without_weights(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """Return the experiment with models that are taken by their configs and tokenizers, and the names of those that are.

    Raises:
        InputError: A model has no config here, and the hub does not give it.
    """
    from tasks.data.hollow_models import hollow_folder

    taken: list[str] = []

    def hollow(model: ModelSpec) -> ModelSpec:
        folder = hollow_folder(model.name, revision=model.revision)
        if folder == model.name:
            return model
        taken.append(model.name)
        return model.model_copy(update={"name": folder, "revision": None})

    if experiment.models:
        changes: dict[str, object] = {"models": [hollow(model) for model in experiment.models]}
    else:
        changes = {"model": hollow(experiment.model)}
    return experiment.model_copy(update=changes), taken
