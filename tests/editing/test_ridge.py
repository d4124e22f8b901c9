"""What share of a residual arrives, predicted from keys and measured; and a ridge that is given by the keys."""

import statistics

import pytest
import torch

from editing.api import edit
from editing.errors import HparamsError
from editing.factworld.world import World
from editing.hparams import resolve_hparams
from editing.measure.moments import collect_moments
from editing.methods.editor import Artifacts, EditResult, make_editor
from editing.methods.geometry import KeyGeometry
from editing.model.lm import LanguageModel
from editing.model.loading import load

LAYER = 1
FEW = {"steps": 6, "contexts": 2}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("factworld-tiny", dtype="float64")


@pytest.fixture(scope="module")
def geometry(lm: LanguageModel) -> KeyGeometry:
    return KeyGeometry.of(collect_moments(lm, World(n_known=300).corpus(300), [LAYER])[LAYER].matrix, jitter=1e-6)


def edited(lm: LanguageModel, geometry: KeyGeometry, n_facts: int, **hparams: object) -> EditResult:
    method = make_editor("memit", resolve_hparams("memit", model=lm.name, overrides=FEW | hparams))
    facts = World(n_known=300).requests()[:n_facts]
    return method.edit(lm, facts, [LAYER], {}, Artifacts(geometry={LAYER: geometry}, contexts=("", "In", "The")))


@pytest.mark.parametrize("weight", [5.0, 50.0, 500.0, 5000.0])
def test_one_edits_share_is_q_over_ridge_and_q(weight: float, lm: LanguageModel, geometry: KeyGeometry) -> None:
    result = edited(lm, geometry, 1, preservation_weight=weight)
    (update,), (parameter,) = result.edit_updates, result.parameters
    assert parameter.shortfall is not None and parameter.ridge == weight
    assert 1 - parameter.shortfall == pytest.approx(update.q / (weight + update.q), rel=1e-6)


@pytest.mark.parametrize("times", [0.1, 0.25, 1.0, 4.0])
def test_a_relative_ridge_makes_the_share_the_same_on_any_scale(
    times: float, lm: LanguageModel, geometry: KeyGeometry
) -> None:
    for scale in (1.0, 100.0):
        scaled = KeyGeometry.of(geometry.moment * scale)
        result = edited(lm, scaled, 1, preservation_weight={"times_median_q": times})
        assert result.parameters[0].shortfall == pytest.approx(times / (1 + times), rel=1e-6)
        assert result.parameters[0].ridge == pytest.approx(times * result.edit_updates[0].q, rel=1e-9)
    batch = edited(lm, geometry, 4, preservation_weight={"times_median_q": times})
    q = statistics.median(update.q for update in batch.edit_updates if update.q is not None)
    assert batch.parameters[0].ridge == pytest.approx(times * q, rel=1e-9)
    plain = edited(lm, geometry, 4, preservation_weight=batch.parameters[0].ridge)
    assert torch.equal(plain.updates[0].left, batch.updates[0].left)  # type: ignore[arg-type]


def test_what_a_relative_ridge_may_be() -> None:
    given = {"preservation_weight": {"times_median_q": 0.25}}
    resolved = resolve_hparams("memit", model="gpt2-xl", overrides=given)
    assert resolved["preservation_weight"] == {"times_median_q": 0.25}
    assert make_editor("memit", resolved).ridge_for(8) is None
    assert isinstance(resolve_hparams("memit", model="gpt2-xl")["preservation_weight"], float)
    with pytest.raises(HparamsError, match=r"preservation_weight = .* is dict, expected float"):
        resolve_hparams("memit", model="gpt2-xl", overrides={"preservation_weight": {"times_mean_q": 0.25}})
    with pytest.raises(HparamsError, match=r"clamp = .* is dict, expected float"):
        resolve_hparams("memit", model="gpt2-xl", overrides={"clamp": {"times_median_q": 0.25}})
    with pytest.raises(HparamsError, match="remember: true keeps those of earlier batches at one weight"):
        make_editor("memit", resolve_hparams("memit", model="gpt2-xl", overrides=given | {"remember": True}))
    with pytest.raises(HparamsError, match="preservation_weight"):
        wrong = {"preservation_weight": {"times_median_q": 0.0}}
        make_editor("memit", resolve_hparams("memit", model="gpt2-xl", overrides=wrong))


def test_edit_says_where_little_arrives_and_what_did_not_take(lm: LanguageModel) -> None:
    texts, facts = World(n_known=300).corpus(300), World(n_known=300).requests()[:2]
    with edit(lm, facts, layers=LAYER, texts=texts, batch_size=1, preservation_weight=1e6, **FEW) as lost:
        said = str(lost)
        assert not any(lost.took) and "of the wanted change arrives: the ridge 1e+06 is" in said
        assert f"{facts[0].request_id}: did not take; its target was" in said
    with edit(lm, facts, layers=0, texts=texts, batch_size=1, preservation_weight={"times_median_q": 0.25}) as found:
        assert "arrives" not in str(found)
