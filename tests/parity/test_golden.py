"""Every array of the official implementations' runs, recomputed."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch

from editing.api import apply
from editing.editors.rome import Rome
from editing.measure.moments import collect_moments
from editing.measure.tracing import TracePlan, causal_trace
from editing.methods.editor import Artifacts, make_editor
from editing.methods.locate import SpreadEditor, read_keys
from editing.methods.targets import Targets
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from tests.parity.conftest import STATE_TOLERANCE, UPDATE_TOLERANCE, Golden, relative

ROME = {"use_second_moment": True, "key": "mean", "remember": False}


def target_hparams(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "steps": settings["v_num_grad_steps"],
        "lr": settings["v_lr"],
        "weight_decay": settings["v_weight_decay"],
        "clamp": float(settings["clamp_norm_factor"]),
        "kl_weight": settings["kl_factor"],
        "contexts": 0,
        "context_tokens": [10],
        "context_starts": (),
        "protocol": "code",
    }


def spread_editor(case: dict[str, Any]) -> SpreadEditor:
    settings = case["hparams"]
    hparams = target_hparams(settings) | {"remember": False}
    weight = float(settings["mom2_update_weight"])
    if case["method"] == "MEMIT":
        return cast(SpreadEditor, make_editor("memit", hparams | {"preservation_weight": weight}))
    ridge = {"ridge": 0.0, "code_lambda": settings["emmet_lambda"], "code_moment_weight": weight}
    return cast(SpreadEditor, make_editor("emmet", hparams | ridge))


def artifacts_of(golden: Golden) -> Artifacts:
    return Artifacts(geometry=golden.geometry(), contexts=golden.contexts())


def check_targets(targets: Targets, arrays: dict[str, torch.Tensor], prefix: str, value: str, arch: str) -> None:
    width = arrays[f"{prefix}loss_steps"].shape[1]
    found = {
        "loss_steps": targets.losses[:, :width],
        "target_init": targets.initial,
        "delta": targets.delta,
        value: targets.value,
    }
    assert targets.losses[:, width:].isnan().all(), "more steps than the reference"
    for name, array in found.items():
        assert relative(array, arrays[prefix + name]) <= STATE_TOLERANCE[arch], name


def check_spread_batch(
    golden: Golden,
    lm: LanguageModel,
    editor: SpreadEditor,
    batch: Sequence[EditRequest],
    layers: Sequence[int],
    arrays: dict[str, torch.Tensor],
    prefix: str = "",
) -> None:
    """Edit one batch and compare targets, keys, present states, solve and weights at every layer; leaves it applied."""
    artifacts, arch = artifacts_of(golden), golden.arch
    check_targets(editor.targets(lm, batch, layers, artifacts), arrays, prefix, "zs", arch)
    result = editor.edit(lm, batch, layers, {}, artifacts)
    for layer, update in zip(layers, result.updates, strict=True):
        keys = read_keys(lm, batch, artifacts.contexts, [layer], "half_bare")[layer].mean
        present = editor.present(lm, batch, layers[-1])
        before = lm.weight(layer).clone()
        update.apply(lm)
        assert update.left is not None and update.right is not None
        change = (lm.weight(layer) - before).T if golden.arch == "gpt2" else lm.weight(layer) - before
        states = {"keys": keys, "cur_zs": present}
        updates = {"resid": update.left, "adj_k": update.right.T, "dW": change}
        for name, array in states.items():
            assert relative(array, arrays[f"{prefix}{name}_{layer}"]) <= STATE_TOLERANCE[arch], (name, layer)
        for name, array in updates.items():
            if f"{prefix}{name}_{layer}" in arrays:
                assert relative(array, arrays[f"{prefix}{name}_{layer}"]) <= UPDATE_TOLERANCE[arch], (name, layer)


def check_final_weights(golden: Golden, lm: LanguageModel, case: str, layers: Sequence[int]) -> None:
    """Compare the weights after the whole case (the reference stored its sequential ``b0.W`` after the last batch)."""
    for name, array in golden.arrays(case).items():
        for layer in layers:
            if name.rpartition(".")[2] == f"W_{layer}":
                weight = lm.parameter(lm.parameter_names(layer)["weight"])
                assert relative(weight, array) <= UPDATE_TOLERANCE[golden.arch], name


def check_metrics(golden: Golden, lm: LanguageModel, case: str) -> None:
    arrays, requests = golden.arrays(case), golden.requests()
    kinds = {
        "rewrite": [(r.prompt,) for r in requests],
        "paraphrase": [r.paraphrase_prompts for r in requests],
        "neighborhood": [r.neighborhood_prompts for r in requests],
    }
    for kind, prompts in kinds.items():
        flat = [(p, r) for r, mine in zip(requests, prompts, strict=True) for p in mine]
        new = lm.answer_logprobs([p for p, _ in flat], [r.target_new for _, r in flat])
        true = lm.answer_logprobs([p for p, _ in flat], [r.target_true for _, r in flat])
        nll = torch.tensor([[a.nll_mean, b.nll_mean] for a, b in zip(new, true, strict=True)], dtype=torch.float64)
        expected = arrays[f"nll_{kind}"]
        assert relative(nll.reshape(expected.shape), expected) <= UPDATE_TOLERANCE[golden.arch], kind
        right = true if kind == "neighborhood" else new
        correct = torch.tensor([score.correct for score in right]).reshape(arrays[f"argmax_correct_{kind}"].shape)
        assert torch.equal(correct, arrays[f"argmax_correct_{kind}"]), kind


@pytest.mark.case("cov")
def test_second_moments(golden: Golden) -> None:
    lm, settings = golden.load(), golden.settings("cov")
    assert [list(ids) for ids in lm.format.prompts(settings["texts"])] == settings["token_ids"]
    moments = collect_moments(lm, settings["texts"], range(lm.n_layers))
    assert moments[0].n_tokens == settings["token_count"]
    whole = golden.has("cov")  # the small part that is kept with the tests holds every sixteenth row of each matrix
    expected = golden.arrays("cov" if whole else "cov_rows")
    assert expected.keys() == {f"C_{layer}" for layer in moments}
    for layer, moment in moments.items():
        found = moment.matrix if whole else moment.matrix[::16]
        assert relative(found, expected[f"C_{layer}"]) <= STATE_TOLERANCE[golden.arch], layer


@pytest.mark.case("base_metrics")
def test_metrics_of_the_unedited_model(golden: Golden) -> None:
    check_metrics(golden, golden.load(), "base_metrics")


@pytest.mark.case("memit_batch24")
def test_memit_in_one_batch(golden: Golden) -> None:
    lm, case = golden.load(), golden.settings("memit_batch24")
    check_spread_batch(
        golden, lm, spread_editor(case), golden.requests(), case["hparams"]["layers"], golden.arrays("memit_batch24")
    )
    check_final_weights(golden, lm, "memit_batch24", case["hparams"]["layers"])
    check_metrics(golden, lm, "memit_batch24")


@pytest.mark.case("memit_seq2x12")
def test_memit_in_two_batches(golden: Golden) -> None:
    lm, arrays, requests = golden.load(), golden.arrays("memit_seq2x12"), golden.requests()
    for number, case in enumerate(golden.settings("memit_seq2x12")["batches"]):
        batch = requests[number * 12 : number * 12 + 12]
        check_spread_batch(golden, lm, spread_editor(case), batch, case["hparams"]["layers"], arrays, f"b{number}.")
    check_final_weights(golden, lm, "memit_seq2x12", case["hparams"]["layers"])
    check_metrics(golden, lm, "memit_seq2x12")


@pytest.mark.case("emmet_batch24")
def test_emmet_in_one_batch(golden: Golden) -> None:
    lm, case = golden.load(), golden.settings("emmet_batch24")
    check_spread_batch(
        golden, lm, spread_editor(case), golden.requests(), case["hparams"]["layers"], golden.arrays("emmet_batch24")
    )
    check_final_weights(golden, lm, "emmet_batch24", case["hparams"]["layers"])
    check_metrics(golden, lm, "emmet_batch24")


@pytest.mark.case("emmet_single3")
def test_emmet_one_edit_at_a_time_has_no_ridge(golden: Golden) -> None:
    requests, arrays = golden.requests(), golden.arrays("emmet_single3")
    for number, case in enumerate(golden.settings("emmet_single3")["edits"]):
        lm, editor = golden.load(), spread_editor(case)
        assert editor.ridge_for(1) == 0
        batch = requests[number : number + 1]
        check_spread_batch(golden, lm, editor, batch, case["hparams"]["layers"], arrays, f"e{number}.")


def check_rome(
    golden: Golden, lm: LanguageModel, editor: Rome, request: EditRequest, layer: int, arrays: dict[str, torch.Tensor]
) -> float:
    """Edit one fact, compare its row of every array, apply it, and return the norm of the change."""
    artifacts, arch = artifacts_of(golden), golden.arch
    targets = editor.targets(lm, [request], [layer], artifacts)
    check_targets(targets, arrays, "", "v_star", arch)
    keys = read_keys(lm, [request], artifacts.contexts, [layer], "flat")[layer]
    (update,) = apply(lm, editor, [request], [layer], {}, artifacts).updates
    assert update.left is not None and update.right is not None
    for name, array in {"k_star": keys.mean, "cur_input": keys.bare, "cur_output": keys.bare_value}.items():
        assert relative(array, arrays[name]) <= STATE_TOLERANCE[arch], name
    for name, array in {"u": update.right, "right_vector": update.left.T}.items():
        assert relative(array, arrays[name]) <= UPDATE_TOLERANCE[arch], name
    return float((update.left @ update.right).norm())


@pytest.mark.case("rome_seq24")
def test_rome_one_after_another(golden: Golden) -> None:
    lm, arrays, case = golden.load(), golden.arrays("rome_seq24"), golden.settings("rome_seq24")
    editor = cast(Rome, make_editor("rome", ROME | target_hparams(case["hparams"])))
    (layer,) = case["hparams"]["layers"]
    per_edit = [name for name, array in arrays.items() if array.shape[:1] == (24,) and not name.startswith("dW")]
    norms = []
    before = lm.parameter(lm.parameter_names(layer)["weight"]).clone()
    for number, request in enumerate(golden.requests()):
        mine = {name: arrays[name][number : number + 1] for name in per_edit}
        norms.append(check_rome(golden, lm, editor, request, layer, mine))
    weight = lm.parameter(lm.parameter_names(layer)["weight"])
    final = {"W_final": weight, "dW_total": weight - before, "dW_norms": torch.tensor(norms, dtype=torch.float64)}
    for name, array in final.items():
        assert relative(array, arrays[name]) <= UPDATE_TOLERANCE[golden.arch], name
    check_metrics(golden, lm, "rome_seq24")


@pytest.mark.case("rome_single6")
def test_rome_each_edit_alone(golden: Golden) -> None:
    arrays, case = golden.arrays("rome_single6"), golden.settings("rome_single6")
    editor = cast(Rome, make_editor("rome", ROME | target_hparams(case["hparams"])))
    for number, request in enumerate(golden.requests()[:6]):
        lm = golden.load()
        prefix = f"e{number}."
        mine = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        norm = check_rome(golden, lm, editor, request, case["hparams"]["layers"][0], mine)
        assert norm == pytest.approx(float(mine["dW_norms"]), rel=UPDATE_TOLERANCE[golden.arch])


def check_r_rome(
    golden: Golden, lm: LanguageModel, key: str, request: EditRequest, settings: dict[str, Any], mine: dict[str, Any]
) -> torch.Tensor:
    """Edit one fact with one key throughout, compare its row of every array, and return the change."""
    hparams = ROME | target_hparams(settings) | {"protocol": "corrected", "key": key}
    editor, (layer,), artifacts = cast(Rome, make_editor("rome", hparams)), settings["layers"], artifacts_of(golden)
    check_targets(editor.targets(lm, [request], [layer], artifacts), mine, "", "v_star", golden.arch)
    keys = read_keys(lm, [request], artifacts.contexts, [layer], "flat")[layer]
    k, present = (keys.bare, keys.bare_value) if key == "bare" else (keys.mean, keys.mean_value)
    for name, array in {"k_star": k, "cur_input": k, "cur_output": present}.items():
        assert relative(array, mine[name]) <= STATE_TOLERANCE[golden.arch], name
    weight = lm.parameter(lm.parameter_names(layer)["weight"])
    before = weight.clone()
    apply(lm, editor, [request], [layer], {}, artifacts)
    view = (weight - before).T if lm.is_transposed(lm.parameter_names(layer)["weight"]) else weight - before
    assert relative(view, mine["right_vector"].T @ mine["u"]) <= UPDATE_TOLERANCE[golden.arch]
    if golden.arch == "gpt2":  # the edited projection maps the key to v*, exactly
        assert relative(k @ view.T + present, mine["v_star"]) <= UPDATE_TOLERANCE[golden.arch]
    return weight - before


@pytest.mark.case("rrome_prefix_seq24", "rrome_bare_seq24")
def test_r_rome_one_after_another(golden: Golden, case: str) -> None:
    key = "bare" if "bare" in case else "mean"
    lm, arrays, settings = golden.load(), golden.arrays(case), golden.settings(case)["hparams"]
    per_edit = [name for name, array in arrays.items() if array.shape[:1] == (24,) and not name.startswith("dW")]
    changes = []
    for number, request in enumerate(golden.requests()):
        mine = {name: arrays[name][number : number + 1] for name in per_edit}
        changes.append(check_r_rome(golden, lm, key, request, settings, mine))
    assert relative(torch.stack(changes).sum(0), arrays["dW_total"]) <= UPDATE_TOLERANCE[golden.arch]
    norms = torch.stack([change.norm() for change in changes])
    assert relative(norms, arrays["dW_norms"]) <= UPDATE_TOLERANCE[golden.arch]
    check_metrics(golden, lm, case)


@pytest.mark.case("rrome_prefix_single6", "rrome_bare_single6")
def test_r_rome_each_edit_alone(golden: Golden, case: str) -> None:
    key = "bare" if "bare" in case else "mean"
    arrays, settings = golden.arrays(case), golden.settings(case)["hparams"]
    for number, request in enumerate(golden.requests()[:6]):
        mine = {n.removeprefix(f"e{number}."): a for n, a in arrays.items() if n.startswith(f"e{number}.")}
        change = check_r_rome(golden, golden.load(), key, request, settings, mine)
        assert float(change.norm()) == pytest.approx(float(mine["dW_norms"]), rel=UPDATE_TOLERANCE[golden.arch])
        if "dW_total" in mine:
            assert relative(change, mine["dW_total"]) <= UPDATE_TOLERANCE[golden.arch]


@pytest.mark.case("ftc_batch24")
def test_ft_c(golden: Golden) -> None:
    lm, arrays = golden.load(), golden.arrays("ftc_batch24")
    settings = golden.settings("ftc_batch24")["hparams"]
    editor = make_editor(
        "ft_c",
        {
            "steps": settings["num_steps"],
            "lr": settings["lr"],
            "bound_from": "batch",
            "bound": settings["norm_constraint"],
            "minibatch": settings["batch_size"],
            "stop_loss": 0.01,
            "weight_decay": 0.0,
            "decoupled": False,
            "parts": ["mlp_out"],
            "protocol": "code",
        },
    )
    names = editor.parameter_names(lm, settings["layers"])
    before = lm.snapshot(names)
    result = apply(lm, editor, golden.requests(), settings["layers"], {}, Artifacts())
    assert len(result.losses) == len(arrays["losses"]), "another number of minibatch steps than the reference"
    assert relative(torch.tensor(result.losses, dtype=torch.float64), arrays["losses"]) <= STATE_TOLERANCE[golden.arch]
    for name in names:
        if f"W.{name}" in arrays:
            change = lm.parameter(name) - before[name]
            assert relative(lm.parameter(name), arrays[f"W.{name}"]) <= UPDATE_TOLERANCE[golden.arch], name
            assert relative(change, arrays[f"dW.{name}"]) <= UPDATE_TOLERANCE[golden.arch], name
    check_metrics(golden, lm, "ftc_batch24")


@pytest.mark.case("causal_trace")
def test_causal_tracing(golden: Golden) -> None:
    lm, arrays, settings = golden.load(), golden.arrays("causal_trace"), golden.settings("causal_trace")
    by_id = {request.request_id: request for request in golden.requests()}
    requests = [by_id[str(fact["case_id"])] for fact in settings["facts"]]
    plan = TracePlan(samples=settings["samples"], window=settings["window"], noise=settings["noise_level"], seed=1)
    for number, (trace, fact) in enumerate(zip(causal_trace(lm, requests, plan), settings["facts"], strict=True)):
        assert trace.subject == (fact["subject_range"][0], fact["subject_range"][1] - 1)
        found = {
            "low_score": torch.tensor(trace.low, dtype=torch.float64),
            "high_score": torch.tensor(trace.high, dtype=torch.float64),
        } | {
            f"scores_{short}": trace.scores[kind]
            for short, kind in (("hidden", "hidden"), ("mlp", "mlp"), ("attn", "attention"))
        }
        for name, array in found.items():
            assert relative(array, arrays[f"f{number}.{name}"]) <= 1e-10, (number, name)


@pytest.mark.case("memit_batch24")
def test_float32_model_with_float64_solves(golden: Golden) -> None:
    lm, case, arrays = golden.load(torch.float32), golden.settings("memit_batch24"), golden.arrays("memit_batch24")
    layers = case["hparams"]["layers"]
    before = {layer: lm.parameter(lm.parameter_names(layer)["weight"]).clone() for layer in layers}
    apply(lm, spread_editor(case), golden.requests(), layers, {}, artifacts_of(golden))
    for layer in layers:
        change = lm.parameter(lm.parameter_names(layer)["weight"]) - before[layer]
        assert relative(change, arrays[f"dW_{layer}"]) <= 1e-4, layer
