"""Artifacts: computed inputs (second moments, context prefixes), named by their recipe and checked by their content.

    <store>/artifacts/<kind>/<digest of the recipe>/artifact.json    recipe, and size and digest of each file
    <store>/artifacts/<kind>/<digest of the recipe>/<file>

The directory appears in one rename, so a half-written artifact is never seen; the first writer wins.
"""

import json
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import ArtifactMismatch
from storage.identity import digest_of, digest_of_file
from storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A stored artifact whose content has been checked."""

    folder: Path
    recipe: dict[str, Any]
    digest: str
    """Of the content of all its files."""

    def path(self, name: str) -> Path:
        return self.folder / name


def artifact_recipes(store: Store, kind: str) -> list[dict[str, Any]]:
    """Return the recipes of all stored artifacts of a kind."""
    cards = sorted((store.root / "artifacts" / kind).glob("*/artifact.json"))
    return [json.loads(card.read_text())["recipe"] for card in cards]


def find_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
    """Return the artifact of a recipe, or None if it has not been made.

    Raises:
        ArtifactMismatch: What is stored under this name has another recipe, or a file has changed.
    """
    folder = store.root / "artifacts" / kind / digest_of(recipe)
    card = folder / "artifact.json"
    if not card.exists():
        return None
    try:
        written = json.loads(card.read_text())
        found, files = written["recipe"], written["files"]
    except (ValueError, KeyError) as error:
        raise ArtifactMismatch(f"{card} is damaged ({error}); delete {folder} to make the artifact again") from error
    if found != json.loads(json.dumps(recipe)):
        raise ArtifactMismatch(
            f"{card} was made by another recipe: found {found}, expected {dict(recipe)}; delete {folder}"
        )
    for name, expected in files.items():
        path = folder / name
        digest = digest_of_file(path) if path.exists() else "missing"
        if digest != expected:
            raise ArtifactMismatch(
                f"{path} is not what was stored: digest {digest[:12]}, expected {expected[:12]}; delete {folder} to make the "
                "artifact again, and distrust runs made since it changed"
            )
    return Artifact(folder=folder, recipe=found, digest=digest_of(files))


def has_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> bool:
    """Return whether there is an artifact of this recipe, without a look at its content."""
    return (store.root / "artifacts" / kind / digest_of(recipe) / "artifact.json").exists()


def put_artifact(store: Store, kind: str, recipe: Mapping[str, Any], files: Mapping[str, bytes]) -> Artifact:
    """Store an artifact and return it; if another writer was first, its artifact is returned instead.

    Raises:
        ArtifactMismatch: What is stored under this name is damaged.
    """
    final = store.root / "artifacts" / kind / digest_of(recipe)
    temporary = store.root / "_tmp" / uuid.uuid4().hex
    temporary.mkdir(parents=True)
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        digests = {name: digest_of_file(temporary / name) for name in files}
        (temporary / "artifact.json").write_text(json.dumps({"recipe": dict(recipe), "files": digests}, indent=1))
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not (final / "artifact.json").exists():
            _remove(store, final)  # what is left of one that was deleted or copied in part
        try:
            temporary.rename(final)
        except OSError:
            if not (final / "artifact.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    artifact = find_artifact(store, kind, recipe)
    assert artifact is not None, "it was renamed into place above"
    return artifact


def drop_artifact(store: Store, kind: str, recipe: Mapping[str, Any]) -> None:
    """Delete an artifact that nothing needs any more; one that is not there is no error."""
    final = store.root / "artifacts" / kind / digest_of(recipe)
    if final.exists():
        _remove(store, final)


def _remove(store: Store, final: Path) -> None:
    temporary = store.root / "_tmp" / uuid.uuid4().hex
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # out of sight in one rename, so that nobody reads half of it
        final.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)
