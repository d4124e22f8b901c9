"""Good inputs with the store that a run of them has left."""

from pathlib import Path

from tests.mutations.inputs import make_inputs
from tests.mutations.stages import _stages


def make_good(root: Path) -> None:
    """Write good inputs below ``root`` and run them into ``root/store``."""
    root.mkdir(parents=True)
    make_inputs(root)
    _stages(root / "experiment.yaml", root, lambda _stage: None)
