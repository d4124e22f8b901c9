"""Models in GGUF files: de-quantised by transformers, once, into ordinary folders of the user's cache.

This module loads nothing heavy: a plan of a model that was de-quantised before needs neither torch nor transformers.
"""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from editing.errors import ModelError
from editing.model.folders import models_folder, with_ordinary_permissions
from editing.model.progress import without_bars

SOURCE = "dequantised.json"
"""In such a folder: the file that it was made of, by what, and the SHA-256 of what was made."""
_MAGIC = b"GGUF"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_DTYPES = ("float32", "float64", "bfloat16", "float16")


def is_gguf(name: str | Path) -> bool:
    """Return whether a name is that of a GGUF file."""
    return str(name).lower().endswith(".gguf")


def dequantised_folder(
    file: str | Path, *, dtype: str = "auto", sha256: str | None = None, beside: Mapping[str, str] | None = None
) -> Path:
    """Return a folder with the model of a GGUF file in plain floating point, as ``save_pretrained`` writes it.

    It is made once for each content of the file, dtype and versions of what de-quantises, and found again by them.  Its
    logits are those of ``AutoModelForCausalLM.from_pretrained(folder, gguf_file=...)``, bit by bit.

    Args:
        dtype: Of the weights; ``auto`` is float32.
        sha256: Of the content that the file must have, if that is known already.
        beside: Further texts to put into the folder by name, as a licence.

    Raises:
        ModelError: No such file, not a GGUF file, one shard of several, of an architecture that transformers does not read,
            of another content than it must have, or the package gguf is not installed.
    """
    file = Path(file).expanduser()
    dtype = "float32" if dtype == "auto" else dtype
    _check(file)
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r}; expected auto or one of {list(_DTYPES)}")
    by = dequantiser()
    digest = sha256 or digest_of_content(file)
    made_of = json.dumps(
        {"file": digest, "dtype": dtype, "by": by, "beside": dict(beside or {}), "as": 2}, sort_keys=True
    )
    folder = models_folder() / f"{file.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    if (folder / SOURCE).is_file():
        return folder
    if sha256 is not None:
        check_content(file, sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        with without_bars(where=not sys.stderr.isatty()):  # a log has no use for them
            _write(file, unfinished, dtype)
        for name, text in (beside or {}).items():
            (unfinished / name).write_text(text, encoding="utf-8")
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        made = {path.relative_to(unfinished).as_posix(): digest_of_content(path) for path in files}
        told = {"file": file.name, "sha256": digest, "dtype": dtype, "by": by, "made": made}
        (unfinished / SOURCE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / SOURCE).is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def dequantiser() -> str:
    """Return what de-quantises, with versions.

    Raises:
        ModelError: The package gguf is not installed.
    """
    try:
        return f"gguf {metadata.version('gguf')}, transformers {metadata.version('transformers')}"
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            "a model in a GGUF file is read by the package gguf, which is not installed; "
            "pip install 'palimpsest-editing[gguf]'"
        ) from error


def source_of(folder: str | Path) -> dict[str, Any] | None:
    """Return what a folder says of the GGUF file that it was made of; None if it was made of none."""
    place = Path(folder) / SOURCE
    if not place.is_file():
        return None
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def digest_of_content(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_content(file: Path, expected: str) -> None:
    """Refuse a file whose content is another's.

    Raises:
        ModelError: It is, or there is none.
    """
    if not file.is_file():
        raise ModelError(f"{file.name} is not in what was fetched; expected a file with the SHA-256 {expected}")
    if (found := digest_of_content(file)) != expected:
        raise ModelError(
            f"{file} has the SHA-256 {found}; expected {expected}: it is another file, or was cut off; delete it and fetch it "
            "again"
        )


def _check(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"model file {str(file)!r} does not exist; expected a GGUF file, a folder, or a hub id")
    if _SHARD.search(file.name):
        raise ModelError(
            f"model file {str(file)!r} is one shard of several; expected a whole model in one file: merge them with "
            "llama-gguf-split --merge"
        )
    with file.open("rb") as stream:
        if (found := stream.read(4)) != _MAGIC:
            raise ModelError(
                f"model file {str(file)!r} begins with {found!r}; expected a GGUF file, which begins with {_MAGIC!r}"
            )


def _write(file: Path, folder: Path, dtype: str) -> None:
    """Write the model into a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
        quantised = AutoModelForCausalLM.from_pretrained(file.parent, **where, dtype=getattr(torch, dtype))
    except Exception as error:
        # Of many kinds: a header that is cut off, a type of number or an architecture that the packages do not know.
        said = " ".join(str(error).split()) or "no more is known"
        raise ModelError(
            f"model file {str(file)!r} could not be read ({type(error).__name__}: {said}); expected a whole GGUF file of an "
            "architecture that transformers reads: fetch it again, or give the unquantised checkpoint's folder"
        ) from error
    # Weights that were read from such a file refuse to be saved; those of a fresh model, which has them all, do not.
    config = quantised.config
    del config.quantization_config
    with torch.device("meta"):
        plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _without_versions(folder / "config.json")
    with_ordinary_permissions(folder)


def _without_versions(path: Path) -> None:
    """Leave out what changes with every release of transformers: a model's identity is the content of its files."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in ("transformers_version", "_model_name_or_path")}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
