"""Artifacts: computed inputs (second moments, context prefixes), named by their recipe and checked by their content.

    <store>/artifacts/<kind>/<digest of the recipe>/artifact.json        recipe, and the digest of each file
    <store>/artifacts/<kind>/<digest of the recipe>/<attempt>.<file>

The card is created exclusively and last, so a half-written artifact is never seen; the first writer wins.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.digests import digest_of, digest_of_content, digest_of_file
from storage.errors import ArtifactMismatch, DamagedFileError
from storage.store import Store

CARD = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A stored artifact whose content has been checked."""

    paths: Mapping[str, Path]
    """Of its files by name, on this machine."""
    recipe: dict[str, Any]
    digest: str
    """Of the content of all its files."""

    def path(self, name: str) -> Path:
        return self.paths[name]


def artifact_recipes(store: Store, kind: str) -> list[dict[str, Any]]:
    """Return the recipes of all stored artifacts of a kind."""
    names = sorted(name for name in store.files.listing(f"artifacts/{kind}") if name.endswith(f"/{CARD}"))
    return [read_card(store, name)["recipe"] for name in names]


def find_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
    """Return the artifact of a recipe, or None if it has not been made.

    Raises:
        ArtifactMismatch: What is stored under this name has another recipe, or a file has changed.
    """
    folder = _folder(kind, recipe)
    where = f"{store.location}/{folder}"
    try:
        written = read_card(store, f"{folder}/{CARD}")
    except FileNotFoundError:
        return None
    found, digests, attempt = written["recipe"], written["files"], written["attempt"]
    if found != json.loads(json.dumps(recipe)):
        raise ArtifactMismatch(
            f"{where}/{CARD} was made by another recipe: found {found}, expected {dict(recipe)}; delete {where}"
        )
    paths = {}
    for name, expected in digests.items():
        file = f"{folder}/{attempt}.{name}"
        paths[name] = store.files.local(file)
        there = store.files.size(file) is not None and paths[name].is_file()
        digest = digest_of_file(paths[name]) if there else "missing"
        if digest != expected:
            raise ArtifactMismatch(
                f"{store.location}/{file} is not what was stored: digest {digest[:12]}, expected {expected[:12]}; delete "
                f"{where} to make the artifact again, and distrust runs made since it changed"
            )
    return Artifact(paths=paths, recipe=found, digest=digest_of(digests))


def has_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> bool:
    """Return whether there is an artifact of this recipe, without a look at its content."""
    return store.files.size(f"{_folder(kind, recipe)}/{CARD}") is not None


def put_artifact(store: Store, kind: str, recipe: Mapping[str, Any], files: Mapping[str, bytes]) -> Artifact:
    """Store an artifact and return it; if another writer was first, its artifact is returned instead.

    Raises:
        ArtifactMismatch: What is stored under this name is damaged.
    """
    folder, attempt = _folder(kind, recipe), uuid.uuid4().hex[:12]
    if not has_artifact(store, kind, recipe):
        for name, content in files.items():
            store.files.write(f"{folder}/{attempt}.{name}", content)
        digests = {name: digest_of_content(content) for name, content in files.items()}
        card = {"recipe": dict(recipe), "files": digests, "attempt": attempt}
        if not store.files.create(f"{folder}/{CARD}", json.dumps(card, indent=1).encode()):
            for name in files:
                store.files.delete(f"{folder}/{attempt}.{name}")
    artifact = find_artifact(store, kind, recipe)
    assert artifact is not None, "its card was created above, by this writer or another"
    return artifact


def drop_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> None:
    """Delete an artifact that nothing needs any more; one that is not there is no error."""
    folder = _folder(kind, recipe)
    store.files.delete(f"{folder}/{CARD}")  # first, so that nobody reads half of it
    for name in store.files.listing(folder):
        store.files.delete(name)


def read_card(store: Store, name: str) -> dict[str, Any]:
    """Return what an artifact's card says.

    Raises:
        ArtifactMismatch: It is damaged.
        FileNotFoundError: There is none.
    """
    try:
        written = json.loads(store.files.read(name))
        if not isinstance(written["recipe"], dict) or not all(isinstance(d, str) for d in written["files"].values()):
            raise TypeError("recipe and files are no tables")
        return {key: written[key] for key in ("recipe", "files", "attempt")}
    except (ValueError, KeyError, TypeError, AttributeError, DamagedFileError) as error:
        place = f"{store.location}/{name}"
        raise ArtifactMismatch(
            f"{place} is damaged ({error!r}); delete {place.removesuffix(f'/{CARD}')} to make the artifact again"
        ) from error


def _folder(kind: str, recipe: Mapping[str, Any]) -> str:
    return f"artifacts/{kind}/{digest_of(recipe)}"
