"""Computed inputs that a run cannot do without."""

from storage.artifacts import Artifact, find_artifact
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import Recipe


def required_artifact(store: Store, kind: str, recipe: Recipe) -> Artifact:
    """Return an artifact of the store.

    Raises:
        InputError: It is not there.
    """
    found = find_artifact(store, kind, recipe)
    if found is None:
        raise InputError(
            f"the store {store.location} lacks the {kind} of {dict(recipe)}; run the experiment's prepare stage"
        )
    return found
