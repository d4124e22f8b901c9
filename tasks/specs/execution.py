"""How a run is executed: what changes rounding only, and what changes nothing."""

from dataclasses import dataclass

from tasks.specs.recipes import TargetsRecipe


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What can change bits, fixed by the plan and written to a run's first commit."""

    threads: int
    tokens_per_forward: int | None
    """None until the first worker has looked how much memory is free; its choice goes to the first commit."""


@dataclass(frozen=True, kw_only=True)
class SharedTargets:
    """Targets that a run takes from the store for the first facts of its sample, where it edits pristine weights."""

    recipe: TargetsRecipe
    n_facts: int
    per_unit: int


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is executed.  All but its cuts is fixed when the run begins, and read from its first commit by a resume."""

    commit_every: int
    """Edits of one segment; how a chain is cut changes nothing."""
    compute: Compute
    shared_targets: SharedTargets | None = None
    """Changes rounding only."""
    in_step: tuple[str, ...] = ()
    """Ids of the runs, this one among them, that go in step and search for their targets together.  As above."""
