"""What has no official vectors: an obvious slow version of each editor, a theorem, or a trace worked by hand."""

import math
from typing import Any

import pytest
import torch

from editing.api import apply
from editing.editors.grace import Codebook, Grace
from editing.errors import MomentError, SolveError
from editing.factworld.world import World
from editing.hparams import resolve_hparams
from editing.methods.editor import Artifacts, ParameterUpdate, make_editor
from editing.methods.fine_tuning import FineTuning
from editing.methods.geometry import KeyGeometry
from editing.methods.hypernetwork import RunningMoments, normal_equation
from editing.methods.locate import read_keys
from editing.methods.targets import TargetHparams, optimise_targets
from editing.model.lm import LanguageModel, Site
from editing.model.loading import load
from editing.requests import EditRequest
from tests.conformance.cases import CONTEXTS, SMALL, artifacts, batch_size, edits_of, method
from tests.editing.tiny import random_lm, relative, requests


def geometry(d: int = 12, seed: int = 0) -> KeyGeometry:
    x = torch.randn(200, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return KeyGeometry.of(x.T @ x / 200)


def batch(count: int, d_in: int = 12, d_out: int = 5, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, d_in, generator=generator, dtype=torch.float64)
    return keys, torch.randn(count, d_out, generator=generator, dtype=torch.float64)


# --- remembering earlier batches


@pytest.mark.parametrize("ridge", [0.5, 30.0])
def test_held_keys_equal_remembered_ones_at_a_ridge(ridge: float) -> None:
    c, (earlier, _), (keys, residuals) = geometry(), batch(3, seed=2), batch(4)
    held = c.least_disturbing_update(keys, residuals, ridge=ridge, held=earlier)
    remembered = c.remember(earlier, ridge=ridge).least_disturbing_update(keys, residuals, ridge=ridge)
    assert relative(held.update, remembered.update) < 1e-10
    assert relative(held.update, c.least_disturbing_update(keys, residuals, ridge=ridge).update) > 1e-3


def test_at_ridge_0_held_keys_keep_their_values_exactly_and_new_ones_get_theirs() -> None:
    c, (earlier, _), (keys, residuals) = geometry(), batch(3, seed=2), batch(4)
    solution = c.least_disturbing_update(keys, residuals, held=earlier)
    assert float((solution.update @ earlier.T).norm()) < 1e-10
    assert relative(solution.update @ keys.T, residuals.T) < 1e-10
    assert solution.left.shape[1] == solution.right.shape[0] == len(solution.q) == 4


def test_at_ridge_0_a_held_key_that_is_edited_again_is_a_contradiction() -> None:
    c, (keys, residuals) = geometry(), batch(2)
    with pytest.raises(SolveError, match="have the same key and different targets"):
        c.least_disturbing_update(keys, residuals, held=keys[:1])


@pytest.mark.parametrize("name", ["rome", "emmet"])
def test_an_editor_that_remembers_at_ridge_0_keeps_what_earlier_keys_give(name: str) -> None:
    lm, layer = random_lm("gpt2", std=0.1), 1
    inputs = artifacts(name, "gpt2", torch.float32, [layer])
    n = batch_size(name)
    first, second = edits_of("gpt2", n), edits_of("gpt2", n, start=n)
    drift = {}
    for remember in (False, True):
        editor = method(name, remember=remember)
        with lm.preserved(editor.parameter_names(lm, [layer])):
            result = apply(lm, editor, first, [layer], {}, inputs)
            keys = read_keys(lm, first, CONTEXTS, [layer], editor.averaging)[layer].mean  # type: ignore[attr-defined]
            before = keys @ lm.weight(layer).T
            apply(lm, editor, second, [layer], result.state, inputs)
            drift[remember] = relative(keys @ lm.weight(layer).T, before)
    assert drift[True] < 1e-9 < 1e-3 < drift[False]


# --- AlphaEdit


def test_alphaedit_is_the_textbook_with_a_projection() -> None:
    c, (earlier, _), (keys, residuals) = geometry(), batch(3, seed=2), batch(4)
    threshold = float(c.spectrum[0][6:8].mean())
    editor: Any = method("alphaedit", null_threshold=threshold, ridge=0.7)
    solution = editor.solve(c, keys, residuals, earlier)
    basis = c.null_space(threshold)
    p, k = basis @ basis.T, keys.T
    system = p @ (k @ k.T + earlier.T @ earlier) + 0.7 * torch.eye(12, dtype=torch.float64)
    textbook = torch.linalg.solve(system, p @ k @ residuals).T
    assert basis.shape[1] == 7
    assert relative(solution.update, textbook) < 1e-10
    common = c.spectrum[1][:, 7:]
    assert float((solution.update @ common).norm()) < 1e-10, "what ordinary keys use does not move"


def test_an_empty_null_space_is_refused() -> None:
    with pytest.raises(MomentError, match=r"no eigenvalue .* lies below 1e-12"):
        geometry().null_space(1e-12)


# --- controls


def test_the_random_direction_has_memits_norm_and_is_drawn_again_alike() -> None:
    lm, layers, edits = random_lm("gpt2", std=0.1), [1, 2], edits_of("gpt2", 3)
    inputs = artifacts("memit", "gpt2", torch.float32, layers)
    memit = method("memit").edit(lm, edits, layers, {}, inputs)
    drawn = [method("random_direction", direction_seed=seed).edit(lm, edits, layers, {}, inputs) for seed in (0, 0, 1)]
    for place in range(2):
        changes = [change(lm, result.updates[place]) for result in (memit, *drawn)]
        norms = [float(c.norm()) for c in changes]
        assert norms[1:] == pytest.approx([norms[0]] * 3, rel=1e-6)
        assert torch.equal(changes[1], changes[2]) and not torch.equal(changes[1], changes[3])
        cosine = float((changes[0] * changes[1]).sum() / (norms[0] * norms[1]))
        assert abs(cosine) < 0.2, "it has nothing of MEMIT's direction"


def change(lm: LanguageModel, update: ParameterUpdate) -> torch.Tensor:
    with lm.preserved([update.name]):
        before = lm.precise(update.name).double().clone()
        update.apply(lm)
        return lm.precise(update.name).double() - before


def test_reminders_stand_before_the_prompts_that_name_their_subject() -> None:
    lm = random_lm("gpt2")
    facts = [
        EditRequest(
            request_id=str(i),
            template="{} lives in",
            subject=name,
            target_new=city,
            target_true="Rome",
            relation="home",
        )
        for i, (name, city) in enumerate([("Anna", "Paris"), ("Bela", "Oslo"), ("Anna", "Riga")])
    ]
    editor = make_editor("in_context", {"protocol": "corrected"})
    for fact in facts:
        apply(lm, editor, [fact], [0], {}, Artifacts())
    assert lm.patches.rewrite("The city of Anna is") == "Anna lives in Paris. Anna lives in Riga. The city of Anna is"
    assert lm.patches.rewrite("anna is") == "anna is", "letter by letter"
    (score,) = lm.answer_logprobs(["The home of Bela is"], ["Oslo"])
    rewritten = "Bela lives in Oslo. The home of Bela is"
    lm.patches.clear()
    assert lm.answer_logprobs([rewritten], ["Oslo"]) == [score]
    assert lm.answer_logprobs(["The home of Bela is"], ["Oslo"]) != [score]


# --- fine-tuning


def plain_fine_tuning(lm: LanguageModel, edits: list[EditRequest], editor: FineTuning, names: tuple[str, ...]) -> None:
    """One fact at a time through Hugging Face's own loss; the batch's loss is the mean over facts."""
    parameters = [lm.parameter(name).requires_grad_(True) for name in names]
    kind = torch.optim.AdamW if editor.decoupled else torch.optim.Adam
    optimizer = kind(parameters, lr=editor.lr, weight_decay=editor.decay_for(len(edits)))
    for _ in range(editor.steps):
        optimizer.zero_grad()
        losses = []
        for fact in edits:
            (head,) = lm.format.prompts([fact.prompt])
            (tail,) = lm.format.answers([fact.prompt], [fact.target_new])
            if lm.family.head == "causal":
                ids = torch.tensor([head + tail])
                labels = torch.tensor([[-100] * len(head) + list(tail)])
                losses.append(lm.model(ids, labels=labels).loss)
            elif lm.family.head == "seq2seq":
                losses.append(lm.model(torch.tensor([head]), labels=torch.tensor([tail])).loss)
            else:
                losses.append(lm.model(torch.tensor([head]), labels=torch.tensor(tail)).loss)
        torch.stack(losses).mean().backward()
        optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bert"])
@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.0},
        {"weight_decay": 0.1, "parts": ["mlp_in", "mlp_out"]},
        {"weight_decay": 0.1, "decoupled": True},
        {"decay_power": [-0.87, 0.156], "parts": ["block"]},
    ],
    ids=["plain", "l2", "adamw", "scaled"],
)
def test_fine_tuning_is_the_obvious_loop(family: str, changes: dict[str, Any]) -> None:
    lm, edits = random_lm(family, std=0.2), edits_of(family, 3)
    editor = make_editor("ft", resolve_hparams("ft", model="x", overrides={"steps": 4, "stop_loss": 0.0, **changes}))
    assert isinstance(editor, FineTuning)
    names = editor.parameter_names(lm, [1, 2])
    start = lm.snapshot(names)
    apply(lm, editor, edits, [1, 2], {}, Artifacts())
    ours = lm.snapshot(names)
    lm.restore(start)
    plain_fine_tuning(lm, edits, editor, names)
    for name in names:
        moved = ours[name] - start[name]
        if moved.ndim > 1 and float(moved.norm()) > 1e-9:
            # Adam divides by the gradient's size: where that is rounding (the biases of keys), signs differ.
            assert relative(moved, lm.parameter(name) - start[name]) < 2e-3, name


def test_the_decay_by_power_is_memits_formula_which_its_code_never_applies() -> None:
    editor: Any = make_editor("ft", resolve_hparams("ft", model="x", preset="weight-decay"))
    assert editor.decay_for(100) == pytest.approx(100**-0.87028798 * math.exp(0.15589562))
    code: Any = make_editor("ft", resolve_hparams("ft", model="x", preset="weight-decay", protocol="code"))
    assert code.decay_for(100) == 0


@pytest.mark.parametrize("bound_from", ["batch", "pristine"])
def test_a_bound_from_the_pristine_weights_holds_over_batches(bound_from: str) -> None:
    lm, edits = random_lm("gpt2", std=0.2), edits_of("gpt2", 4)
    overrides = {"steps": 6, "lr": 0.05, "bound": 0.02, "bound_from": bound_from, "stop_loss": 0.0}
    editor = make_editor("ft_c", resolve_hparams("ft_c", model="x", overrides=overrides))
    names = editor.parameter_names(lm, [1])
    start, state = lm.snapshot(names), {}
    for at in range(0, 4, 2):
        state = dict(apply(lm, editor, edits[at : at + 2], [1], state, Artifacts()).state)
    farthest = max(float((lm.parameter(name) - start[name]).abs().max()) for name in names)
    assert (farthest <= 0.02 * (1 + 1e-9)) == (bound_from == "pristine")
    assert set(state) == (set(names) if bound_from == "pristine" else set())


def test_rome_without_the_second_moment_writes_along_the_key() -> None:
    lm, (fact,) = random_lm("gpt2", std=0.2), edits_of("gpt2", 1)
    hparams = resolve_hparams("rome", model="x", overrides=SMALL["rome"], preset="without-second-moment")
    editor = make_editor("rome", hparams)
    assert editor.needed() == {"contexts", "subject"}
    (update,) = editor.edit(lm, [fact], [1], {}, Artifacts(contexts=CONTEXTS)).updates
    keys = read_keys(lm, [fact], CONTEXTS, [1], "flat")[1]
    assert update.right is not None
    cosine = torch.nn.functional.cosine_similarity(update.right, keys.mean)
    assert float(cosine) == pytest.approx(1.0, abs=1e-12)
    assert float(update.right @ keys.mean[0]) == pytest.approx(1.0, abs=1e-12)


# --- hyper-networks


def test_running_moments_are_those_of_all_rows() -> None:
    rows = torch.randn(37, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3 + 1
    seen = RunningMoments(6, code_variance=False, dtype=torch.float64)
    for part in rows.split([1, 5, 30, 1]):
        seen.update(part)
    assert torch.allclose(seen.mean, rows.mean(0)) and torch.allclose(seen.std, rows.std(0))
    official = RunningMoments(6, code_variance=True, dtype=torch.float64)
    official.update(rows[:1])
    assert bool(official.std.isnan().all()), "the official formula gives NaN for one row"


def test_the_normal_equation_is_least_squares() -> None:
    keys, wanted = batch(30)
    parts = [(keys[:13], wanted[:13]), (keys[13:], wanted[13:])]
    shift = normal_equation("m", parts, 0.0)
    assert relative(shift.value, torch.linalg.lstsq(keys, wanted).solution) < 1e-10
    with pytest.raises(SolveError, match="5 tokens, 12 dimensions, ridge 0"):
        normal_equation("m", [(keys[:5], wanted[:5])], 0.0)


def test_keys_read_again_after_a_batch_are_those_that_it_was_solved_with() -> None:
    """The official AlphaEdit reads them again; a layer's key depends on the layers before it, which were written by then."""
    lm, edits, layers = random_lm("gpt2", std=0.2), edits_of("gpt2", 3), [1, 2]
    inputs = artifacts("alphaedit", "gpt2", torch.float64, layers)
    editor: Any = method("alphaedit")
    state = apply(lm, editor, edits, layers, {}, inputs).state
    for layer in layers:
        again = read_keys(lm, edits, inputs.contexts, [layer], editor.averaging)[layer].mean
        assert relative(state[f"keys.{layer}"], again) < 1e-12


def test_malmens_ablations_are_settings() -> None:
    lm, layers, edits = random_lm("gpt2", std=0.1, dtype=torch.float32), [1, 2], edits_of("gpt2", 3)
    inputs = artifacts("malmen", "gpt2", torch.float32, layers)
    found = {"malmen": method("malmen").edit(lm, edits, layers, {}, inputs)}
    for preset in ("sum-of-shifts", "first-fc", "all-tokens", "no-regularisation"):
        hparams = resolve_hparams("malmen", model="x", overrides=SMALL["malmen"], preset=preset)
        editor: Any = make_editor("malmen", hparams)
        networks = editor.untrained(lm, layers).requires_grad_(False)
        for net in networks.nets.values():
            net.normalizer.std.fill_(1)
        if preset == "no-regularisation":
            with pytest.raises(SolveError, match="is singular"):
                editor.edit(lm, edits, layers, {}, Artifacts(networks=networks))
            continue
        found[preset] = editor.edit(lm, edits, layers, {}, Artifacts(networks=networks))
    assert set(found) == {"malmen", "sum-of-shifts", "first-fc", "all-tokens"}
    assert {u.name for u in found["first-fc"].updates} == {f"transformer.h.{layer}.mlp.c_fc.weight" for layer in layers}
    assert all(report.ridge is None for report in found["sum-of-shifts"].parameters)
    assert all(report.ridge == pytest.approx(1.0) for report in found["malmen"].parameters)


# --- GRACE


def grace(lm: LanguageModel, **changes: Any) -> Grace:
    editor = make_editor("grace", resolve_hparams("grace", model="x", overrides=SMALL["grace"] | changes))
    assert isinstance(editor, Grace)
    return editor


@pytest.mark.slow
def test_a_ball_holds_the_prompt_that_widened_it_whatever_else_is_in_the_batch() -> None:
    """In float32 a prompt's query differs by a rounding or two in another padding, and the ball's edge is exactly there."""
    lm, facts = load("factworld-gpt2"), World().requests()[:24]
    module = lm.module_name(3, "mlp_out")
    site = Site("key", 3)
    alone = [
        lm.states_at([ids], [len(ids) - 1], [site])[site][0]
        for ids in (lm.format.prompts([f.prompt])[0] for f in facts)
    ]
    sequences = lm.format.prompts([f.prompt for f in facts])
    together = lm.states_at(sequences, [len(ids) - 1 for ids in sequences], [site])[site]
    outside = 0
    for key in alone:
        book = Codebook(f"grace:{module}:last:prompt_end")
        book.columns = {"key": [key], "epsilon": [torch.tensor(0.0, dtype=torch.float64)]}
        for one, batched in zip(alone, together, strict=True):
            _, distance = book.nearest(one[None])
            book.columns["epsilon"] = [distance[0].double()]
            outside += not bool(book.inside(batched[None])[1])
    assert outside == 0


def test_a_codebook_worked_by_hand() -> None:
    """Keys on a line at 0, 5 and 2; balls of radius 1; the third is near the first and says the same, then not."""
    lm = random_lm("gpt2")
    editor, book = grace(lm), Codebook("grace:transformer.h.1.mlp.c_fc:last:prompt_end")

    def place(at: float, answer: int) -> str:
        from editing.editors.grace import _Known

        known = _Known(torch.tensor([at]).double(), torch.tensor([answer]), torch.zeros(1))
        branch, changes = editor._place(book, known)
        for entry in changes:
            book.set(entry.column, entry.row, entry.value)
        return branch

    assert [place(0.0, 7), place(5.0, 8)] == ["first", "new"]
    assert place(1.5, 7) == "expand" and book.table("epsilon").tolist() == [1.5, 1.0]
    assert place(0.7, 7) == "covered"
    assert place(2.0, 9) == "split"
    assert book.table("key").flatten().tolist() == [0.0, 5.0, 2.0]
    assert book.table("epsilon").tolist() == pytest.approx([1.0 - 1e-5, 1.0, 1.0])
    assert place(8.0, 9) == "new"
    assert place(0.0, 3) == "covered" and book.table("label").flatten().tolist() == [3, 8, 9, 9], "written anew"


def test_grace_answers_inside_its_balls_and_nowhere_else() -> None:
    lm, edits = random_lm("gpt2", std=0.1, dtype=torch.float64), requests(4)
    editor = grace(lm, steps=60, epsilon=1e-3, replacement="last")
    prompts, wanted = [r.prompt for r in edits], [r.target_new for r in edits]
    before = lm.answer_logprobs(prompts, wanted)
    for fact in edits[:2]:
        apply(lm, editor, [fact], [2], {}, Artifacts())
    after = lm.answer_logprobs(prompts, wanted)
    assert all(now.nll_sum < was.nll_sum - 0.1 for now, was in zip(after[:2], before[:2], strict=True))
    for now, was in zip(after[2:], before[2:], strict=True):  # outside every ball, as if nothing had happened
        assert now.nll_sum == pytest.approx(was.nll_sum, rel=1e-12) and now[1:] == was[1:]


# --- 16-bit weights


def test_small_updates_add_up_in_a_bfloat16_model() -> None:
    lm = random_lm("llama", dtype=torch.bfloat16, std=0.1)
    name = lm.parameter_names(1)["weight"]
    d_out, d_in = lm.weight(1).shape
    before = lm.parameter(name).clone()
    step = torch.full((d_out, 1), 1e-4), torch.full((1, d_in), 1.0)
    for _ in range(1000):
        ParameterUpdate(name, *step).apply(lm)
    moved = float((lm.precise(name) - before.float()).mean())
    assert moved == pytest.approx(0.1, rel=1e-3), "a thousand steps below bfloat16's resolution are not lost"
    assert torch.equal(lm.parameter(name), lm.precise(name).to(torch.bfloat16))


# --- heads and logits


def test_targets_of_a_float16_model_are_finite() -> None:
    lm = random_lm("gpt2", dtype=torch.float16, std=0.1)
    hparams = TargetHparams(steps=6, lr=0.1, weight_decay=0.1, clamp=4.0, kl_weight=0.0625)
    targets = optimise_targets(lm, requests(3), CONTEXTS, 1, hparams, site="block")
    assert bool(torch.isfinite(targets.delta).all()) and targets.delta.dtype == torch.float32
    assert bool((targets.delta.norm(dim=1) > 0).all())
