"""Models whose weights are not here, for plans: what they would cost is known from their shapes."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from editing.errors import ModelError
from editing.model.folders import models_folder
from editing.model.gguf import is_gguf
from editing.model.named import known_as
from storage.digests import digest_of, digest_of_file
from tasks.data.model_files import TOKENIZER_FILES, hub_files
from tasks.errors import InputError


def hollow_folder(name: str, *, revision: str | None = None) -> str:
    """Return a folder that stands for a model in a plan: its config and tokenizer, and weights of its shapes without content.

    One whose weights are here stands for itself.  Of a hub's model only the config and the tokenizer are fetched.

    Raises:
        InputError: There is no such config, or it is of a family without a row in the table.
    """
    if known_as(name) is not None or is_gguf(name):
        return name
    base = Path(name) if Path(name).is_dir() else hub_files(name, revision, ["config.json", *TOKENIZER_FILES])
    if not (base / "config.json").is_file():
        raise InputError(
            f"model {name!r}: {base} has no config.json; expected one, with the tokenizer's files beside it"
        )
    if any(base.glob("*.safetensors")):
        return name
    found = {path for pattern in TOKENIZER_FILES for path in base.glob(pattern) if path.is_file()}
    files = {path.relative_to(base).as_posix(): path for path in sorted(found)}
    made_of = {place: digest_of_file(path) for place, path in {"config.json": base / "config.json", **files}.items()}
    place = models_folder() / "hollow" / digest_of(made_of, length=12)
    folder = place / name.rstrip("/").rpartition("/")[2]  # by which its hyper-parameters are found
    if not folder.is_dir():
        _write(base, files, folder)
    return str(folder)


def _write(base: Path, files: Mapping[str, Path], folder: Path) -> None:
    from editing.model.hollow import write_hollow
    from editing.model.loading import read_config

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        write_hollow(read_config(base), unfinished / "made", files)
        try:
            (unfinished / "made").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    except (ModelError, json.JSONDecodeError) as error:
        raise InputError(str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
