"""Where the bundled models stand."""

from pathlib import Path

MODELS = Path(__file__).parents[1] / "factworld" / "models"


def bundled_names() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def bundled_folder(name: str) -> Path | None:
    """Return the folder of a bundled model, or None if ``name`` is not one."""
    return MODELS / name if name in bundled_names() else None
