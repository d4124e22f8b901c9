"""What a model's name stands for: a bundled model, one of the catalogue, a GGUF file, a folder, or a hub id."""

from pathlib import Path

from editing.model.bundled import bundled_folder, bundled_names
from editing.model.catalogue import catalogue, catalogued_folder, catalogued_name
from editing.model.gguf import dequantised_folder, is_gguf


def known_names() -> list[str]:
    """Return the names of the models that need neither a folder nor a hub."""
    return [*bundled_names(), *sorted(catalogue())]


def known_as(name: str) -> str | None:
    """Return the name by which a model is known: a bundled one, one of the catalogue, or the file of one; None for others."""
    if name in known_names():
        return name
    return catalogued_name(Path(name).expanduser()) if is_gguf(name) else None


def named_folder(name: str, *, dtype: str = "auto") -> Path | None:
    """Return the ordinary folder in which a model stands, fetched or de-quantised if need be; None for a hub id.

    Args:
        dtype: Of what is de-quantised.

    Raises:
        ModelError: A model of the catalogue that cannot be fetched, or a GGUF file that cannot be read.
    """
    if (bundled := bundled_folder(name)) is not None:
        return bundled
    if name in catalogue():
        return catalogued_folder(name, dtype=dtype)
    if is_gguf(name):
        file = Path(name).expanduser()
        known = catalogued_name(file)
        return catalogued_folder(known, file=file, dtype=dtype) if known else dequantised_folder(file, dtype=dtype)
    return Path(name) if Path(name).is_dir() else None
