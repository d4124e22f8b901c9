"""What MEND and MALMEN have in common: a hyper-network trained beforehand, and an edit that is one pass through it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, cast, get_args

from editing.errors import HparamsError
from editing.methods.editor import (
    Artifacts,
    BaseEditor,
    EditResult,
    FactReport,
    Need,
    ParameterReport,
    ParameterUpdate,
    State,
    Training,
    check_parts,
    require,
    unsettled_microbatch,
)
from editing.methods.hypernetwork import Aggregate, HyperNetworks, NetworkShape, Shift
from editing.methods.meta import cache_gradients, edit_batches, edited_modules, shapes_of
from editing.methods.spool import Spool
from editing.methods.training import MetaSchedule, TrainingPlan
from editing.model.heads import TokenChoice
from editing.model.lm import LanguageModel
from editing.model.weights import PARTS, Part
from editing.requests import EditRequest


@dataclass(frozen=True, kw_only=True)
class TrainedEditor(BaseEditor):
    """An edit whose direction a hyper-network gives; all numbers but ``microbatch`` also determine its training."""

    rank: int
    n_blocks: int
    lr: float
    """Initial step size; learnt, one per edited module."""
    meta_lr: float
    """Adam's learning rate in the training."""
    lr_lr: float
    """That of ``lr`` itself; 0: the same."""
    meta_schedule: str
    """``constant``, or ``linear``: ``meta_lr`` falls to 0 over the training's steps."""
    locality_weight: float
    max_gradient_norm: float
    steps: int
    """Meta-gradient steps of the training; 0 means one epoch of its facts."""
    edits: int
    """Facts edited jointly in one step (m); 0 means as many as the run's batches hold."""
    tokens: str
    """``answer``: only positions that predict the answer give keys and gradients; ``all``: every position."""
    parts: Sequence[str]
    """Edited projections of each layer: ``mlp_in``, ``mlp_out``."""
    aggregate: str
    """``normal_equation`` or ``sum``: how the tokens' shifts are joined."""
    learn_ridge: bool
    """Whether the normal equation's ridge is learnt; else it is 0."""
    microbatch: int
    """Rows per micro-batch; 0 means as many as one forward pass takes."""
    chunk: int
    """Tokens that pass through the hyper-network at once."""
    training_seed: int
    protocol: str

    needs: ClassVar[frozenset[Need]] = frozenset({"network"})

    def __post_init__(self) -> None:
        require(
            self,
            rank=self.rank > 0,
            n_blocks=self.n_blocks > 0,
            lr=self.lr > 0,
            meta_lr=self.meta_lr > 0,
            lr_lr=self.lr_lr >= 0,
            locality_weight=self.locality_weight >= 0,
            max_gradient_norm=self.max_gradient_norm > 0,
            steps=self.steps >= 0,
            edits=self.edits >= 0,
            microbatch=self.microbatch >= 0,
            chunk=self.chunk > 0,
            meta_schedule=self.meta_schedule in get_args(MetaSchedule),
            tokens=self.tokens in ("answer", "all"),
            aggregate=self.aggregate in ("normal_equation", "sum"),
        )
        check_parts(self, self.parts, PARTS[:2])

    def unsettled(self) -> str | None:
        return unsettled_microbatch(self.protocol, self.microbatch)

    def seeds(self) -> Sequence[str]:
        return ("training_seed",)

    # --- training

    def training(self, batch_size: int) -> Training | None:
        return Training(steps=self.steps, edits=self.edits or batch_size)

    def network_shape(self) -> NetworkShape:
        return NetworkShape(
            rank=self.rank,
            n_blocks=self.n_blocks,
            lr=self.lr,
            aggregate=cast(Aggregate, self.aggregate),
            learn_ridge=self.learn_ridge,
            code_variance=self.protocol == "code",
            chunk=self.chunk,
            seed=self.training_seed,
        )

    def training_plan(self, layers: Sequence[int], batch_size: int) -> TrainingPlan:
        """Return how the network for edits of ``batch_size`` facts is trained."""
        return TrainingPlan(
            layers=tuple(layers),
            parts=cast(tuple[Part, ...], tuple(self.parts)),
            tokens=cast(TokenChoice, self.tokens),
            edits=self.edits or batch_size,
            steps=self.steps,
            meta_lr=self.meta_lr,
            lr_lr=self.lr_lr or self.meta_lr,
            meta_schedule=cast(MetaSchedule, self.meta_schedule),
            locality_weight=self.locality_weight,
            max_gradient_norm=self.max_gradient_norm,
            per_batch_mean=self.protocol == "code",
            microbatch=self.microbatch or None,
            seed=self.training_seed,
        )

    def untrained(self, lm: LanguageModel, layers: Sequence[int]) -> HyperNetworks:
        """Return networks of the right shapes, to load trained weights into."""
        modules = edited_modules(lm, layers, cast(tuple[Part, ...], tuple(self.parts)))
        return HyperNetworks(shapes_of(lm, list(modules)), self.network_shape())

    # --- editing

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        """Return the names of the edited weights."""
        parts = cast(tuple[Part, ...], tuple(self.parts))
        return tuple(lm.parameter_names(layer, part)["weight"] for layer in layers for part in parts)

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        networks: HyperNetworks | None = artifacts.networks
        if networks is None:
            raise HparamsError(
                f"{type(self).__name__} needs a trained hyper-network, found none; pass networks= (see "
                "editing.methods.training.Trainer), or let the pipeline's prepare stage train one"
            )
        plan = self.training_plan(layers, len(batch))
        code = self.protocol == "code"  # the official code lets the statistics see the edits too
        if code:
            networks = deepcopy(networks)
            networks.load_state_dict(dict(state), strict=False)
        modules = edited_modules(lm, layers, plan.parts)
        updates, reports = [], []
        with Spool() as spool:
            pairs = edit_batches(lm, batch, plan.microbatch)
            seen = networks if code else None
            cache_gradients(lm, seen, pairs, modules, plan.tokens, spool, per_batch_mean=plan.per_batch_mean)
            for module in modules:
                name, shift = f"{module}.weight", networks.shift(module, spool)
                updates.append(_update(lm, networks, module, spool, shift))
                residual = networks.mean_residual(module, spool, shift)
                reports.append(ParameterReport(parameter=name, ridge=shift.ridge, mean_residual=residual))
        kept = {name: value for name, value in networks.state_dict().items() if "normalizer" in name} if code else {}
        facts = tuple(FactReport(request_id=request.request_id) for request in batch)
        return EditResult(tuple(updates), kept, facts, parameters=tuple(reports))


def _update(lm: LanguageModel, networks: HyperNetworks, module: str, spool: Spool, shift: Shift) -> ParameterUpdate:
    """Return the shift as factors while it has few tokens, else as the new weight."""
    name = f"{module}.weight"
    if spool.count(module) * sum(shift.value.shape) < shift.value.numel():
        return ParameterUpdate.low_rank(lm, name, *networks.factors(module, spool, shift))
    return ParameterUpdate.dense(lm, name, shift.value.T)
