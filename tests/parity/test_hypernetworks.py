"""MALMEN and MEND as the official implementation ran them: caches, shifts, the meta-gradient of every parameter, Adam."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from editing.methods.hypernetwork import HyperNetworks, NetworkShape
from editing.methods.meta import MetaTask, Pairs, accuracy, cache_gradients, meta_gradient
from editing.methods.spool import Spool
from editing.methods.training import Trainer, TrainingPlan
from editing.model.lm import LanguageModel
from tests.parity.conftest import Golden, relative

CASES = pytest.mark.case("malmen", "mend")
TOLERANCE = 1e-10


def pairs(arrays: Mapping[str, Tensor], prefix: str) -> tuple[Pairs, ...]:
    """The golden rows as prompts and answers: a label stands at the position that predicts it."""
    out = []
    index = 0
    while f"{prefix}.{index}.input_ids" in arrays:
        heads, tails = [], []
        for ids, labels in zip(arrays[f"{prefix}.{index}.input_ids"], arrays[f"{prefix}.{index}.labels"], strict=True):
            answer = (labels != -100).nonzero()[:, 0]
            heads.append(tuple(ids[: int(answer[0]) + 1].tolist()))
            tails.append(tuple(labels[answer].tolist()))
        out.append(Pairs(tuple(heads), tuple(tails)))
        index += 1
    return tuple(out)


def task(arrays: Mapping[str, Tensor], split: str) -> MetaTask:
    return MetaTask(*(pairs(arrays, f"{split}.{kind}_tuples") for kind in ("edit", "equiv", "unrel")))


def golden_names(networks: HyperNetworks) -> dict[str, str]:
    """Our parameter names by the golden ones: ``(256, 64).blocks.0.A`` is ``nets.256x64.blocks.0.A``."""
    names = [*dict(networks.named_parameters()), *dict(networks.named_buffers())]
    return {
        f"({shape.replace('x', ', ')}).{rest}": f"nets.{shape}.{rest}"
        for shape, rest in (name.removeprefix("nets.").split(".", 1) for name in names)
    }


class Case:
    """A trainer that stands where the official one stood."""

    def __init__(self, golden: Golden, name: str) -> None:
        self.arrays, settings = golden.arrays(name), golden.settings(name)["settings"]
        self.lm: LanguageModel = golden.load()
        layers = tuple(int(module.split(".")[2]) for module in settings["edit_modules"])
        plan = TrainingPlan(
            layers=layers,
            parts=("mlp_out",),
            tokens="answer" if settings["token"] == "ans" else "all",
            edits=settings["n_edits"],
            steps=1,
            meta_lr=settings["meta_lr"],
            lr_lr=settings["meta_lr"],
            meta_schedule="constant",
            locality_weight=settings["loc_coef"],
            max_gradient_norm=settings["max_grad_norm"],
            per_batch_mean=True,
            microbatch=settings["model_batch"],
            seed=0,
        )
        shape = NetworkShape(
            rank=settings["rank"],
            n_blocks=settings["n_blocks"],
            lr=settings["lr"],
            aggregate="normal_equation" if name == "malmen" else "sum",
            learn_ridge=name == "malmen",
            code_variance=True,
            chunk=7,
            seed=0,
        )
        self.trainer = Trainer(self.lm, golden.requests(), plan, shape)
        self.names = golden_names(self.trainer.networks)
        self.put("net0")

    def put(self, prefix: str) -> None:
        """Set the networks; the statistics of ``net1`` are those after the training facts were cached."""
        state = self.trainer.networks.state_dict()
        seen = "after_cache" if prefix == "net1" else prefix
        given = {
            ours: self.arrays[f"{seen if 'normalizer' in theirs else prefix}.{theirs}"]
            for theirs, ours in self.names.items()
        }
        assert set(given) == set(state), "every parameter and statistic has its golden array"
        self.trainer.networks.load_state_dict(given)

    def step(self) -> tuple[float, float]:
        plan = self.trainer.plan
        return meta_gradient(
            self.lm,
            self.trainer.networks,
            task(self.arrays, "train"),
            self.trainer.modules,
            plan.tokens,
            locality_weight=plan.locality_weight,
            per_batch_mean=plan.per_batch_mean,
        )


@CASES
def test_keys_gradients_statistics_and_shifts(golden: Golden, case: str) -> None:
    official = Case(golden, case)
    lm, networks, arrays = official.lm, official.trainer.networks, official.arrays
    with Spool() as spool:
        cache_gradients(
            lm,
            networks,
            task(arrays, "train").edit,
            official.trainer.modules,
            official.trainer.plan.tokens,
            spool,
            per_batch_mean=True,
        )
        for number, module in enumerate(official.trainer.modules):
            keys, gradients = (torch.cat(part) for part in zip(*spool.chunks(module, 7), strict=True))
            for index, found in (("keys", keys), ("values_grad", gradients)):
                expected = torch.cat([arrays[f"{index}.{number}.{b}"] for b in range(2)])
                assert relative(found, expected) <= TOLERANCE, (index, module)
            shift = networks.shift(module, spool)
            assert relative(shift.value, arrays[f"param_shift.{module}"]) <= TOLERANCE
            left, right = networks.factors(module, spool, shift)
            assert relative((left.double() @ right.double()).T, shift.value) <= TOLERANCE, "the same shift as factors"
    state = networks.state_dict()
    for theirs, ours in official.names.items():
        if "normalizer" in theirs:
            assert relative(state[ours], arrays[f"after_cache.{theirs}"]) <= TOLERANCE, theirs


@CASES
def test_meta_gradient_of_every_parameter_and_the_adam_step(golden: Golden, case: str) -> None:
    official = Case(golden, case)
    log = golden.settings(case)["train_log"][0]
    before = official.lm.snapshot([n for n, _ in official.lm.model.named_parameters()])
    generalisation, locality = official.step()
    n_batches = 2  # the official log is a mean over micro-batches
    assert generalisation == pytest.approx(n_batches * log["gen_loss"], rel=TOLERANCE)
    assert locality == pytest.approx(n_batches * log["loc_loss"], rel=TOLERANCE)
    parameters = dict(official.trainer.networks.named_parameters())
    for theirs, ours in official.names.items():
        if f"grad.{theirs}" in official.arrays:
            gradient = parameters[ours].grad
            assert gradient is not None
            assert relative(gradient, official.arrays[f"grad.{theirs}"]) <= TOLERANCE, theirs
    assert official.trainer.descend() == pytest.approx(float(official.arrays["grad_norm"]), rel=TOLERANCE)
    for theirs, ours in official.names.items():
        if "normalizer" not in theirs:
            found = official.trainer.networks.state_dict()[ours]
            assert relative(found, official.arrays[f"net1.{theirs}"]) <= TOLERANCE, theirs
    assert all(torch.equal(official.lm.parameter(n), value) for n, value in before.items()), "the model is as it was"


@CASES
def test_editing_with_the_trained_network(golden: Golden, case: str) -> None:
    official = Case(golden, case)
    official.put("net1")
    networks, modules, valid = official.trainer.networks, official.trainer.modules, task(official.arrays, "valid")
    tokens, log = official.trainer.plan.tokens, golden.settings(case)["valid_log"][0]
    found = accuracy(official.lm, networks, valid, modules, tokens, per_batch_mean=True, observe=True)
    assert (found.edit, found.equivalent, found.unrelated) == pytest.approx((log["ES"], log["GS"], log["LS"]), abs=1e-6)
    for statistic in ("mean", "var"):  # the official validation updates them too, and in place: net1 holds the result
        expected = official.arrays[f"net1.(256, 64).normalizer.{statistic}"]
        assert relative(networks.state_dict()[f"nets.256x64.normalizer.{statistic}"], expected) <= TOLERANCE
    official.put("net1")
    with Spool() as spool:
        cache_gradients(official.lm, networks, valid.edit, modules, tokens, spool, per_batch_mean=True)
        for module in modules:
            shift = networks.shift(module, spool).value
            assert relative(shift, official.arrays[f"valid.param_shift.{module}"]) <= TOLERANCE


@pytest.mark.case("malmen")
def test_meta_gradient_equals_plain_autograd_through_the_solve(golden: Golden) -> None:
    """The same gradient by one graph from the hyper-network's parameters to the meta-loss."""
    case = Case(golden, "malmen")
    lm, networks, tokens = case.lm, case.trainer.networks, case.trainer.plan.tokens
    meta = task(case.arrays, "train")
    case.step()
    ours = {name: parameter.grad for name, parameter in networks.named_parameters()}
    case.put("net0")
    networks.zero_grad()
    with Spool() as spool:
        cache_gradients(lm, networks, meta.edit, case.trainer.modules, tokens, spool, per_batch_mean=True)
        shifts = {}
        for module in case.trainer.modules:
            ((keys, gradients),) = spool.chunks(module, 10_000)
            d = networks.value_differences(module, keys, gradients)
            system = keys.T @ keys + networks.ridge(module) * torch.eye(keys.shape[1], dtype=keys.dtype)
            shifts[f"{module}.weight"] = torch.linalg.solve(system, keys.T @ d)
    weights = {name: lm.parameter(name) + shift for name, shift in shifts.items()}
    loss = torch.zeros((), dtype=torch.float64)
    for kind, batches in (("equiv", meta.equivalent), ("unrel", meta.unrelated)):
        for batch in batches:
            rows = lm.answer_rows(*batch)
            ids, mask = rows.inputs
            before = lm.model(input_ids=ids, attention_mask=mask).logits[rows.row, rows.column].log_softmax(-1)
            kwargs = {"input_ids": ids, "attention_mask": mask}
            out = torch.func.functional_call(lm.model, weights, (), kwargs, tie_weights=False)
            now = out.logits[rows.row, rows.column].log_softmax(-1)
            if kind == "equiv":
                loss = loss - now.gather(1, rows.token[:, None]).mean()
            else:
                loss = loss + (before.exp() * (before - now)).sum(1).mean()
    loss.backward()
    for name, parameter in networks.named_parameters():
        gradient, mine = parameter.grad, ours[name]
        assert gradient is not None and mine is not None
        assert relative(mine, gradient) <= TOLERANCE, name
