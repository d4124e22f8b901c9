"""Second moments: streamed sums, and the files of other projects."""

from pathlib import Path

import numpy as np
import pytest
import torch

from editing.errors import MomentError
from editing.measure.moments import SecondMoment, collect_moments
from tests.editing.tiny import random_lm, texts


def published(path: Path, **changes: object) -> Path:
    """A file as ROME's layer_stats writes it: sums in float32, a constructor's name, the number of documents."""
    keys = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    content = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": 50,
        "mom2.mom2": (keys.T @ keys).numpy(),
        "sample_size": 100000,
    }
    np.savez(path, **(content | changes))
    return path


def test_a_published_file_is_the_mean_of_its_sum(tmp_path: Path) -> None:
    path = published(tmp_path / "m.npz")
    moment = SecondMoment.read_npz(path, d_in=8)
    assert moment.n_tokens == 50
    with np.load(path) as file:
        assert torch.allclose(moment.matrix, torch.from_numpy(file["mom2.mom2"]).double() / 50, rtol=1e-5)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    lm = random_lm("gpt2")
    moment = collect_moments(lm, texts(20), [1])[1]
    moment.write_npz(tmp_path / "m.npz")
    again = SecondMoment.read_npz(tmp_path / "m.npz", d_in=moment.matrix.shape[0])
    assert again.n_tokens == moment.n_tokens
    assert torch.allclose(again.matrix, moment.matrix, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "d_in", "message"),
    [
        ({}, 9, r"shape \[8, 8\]; expected \[9, 9\]"),
        ({"mom2.count": 0}, 8, "counts 0 tokens"),
        ({"mom2.mom2": np.full((8, 8), np.nan)}, 8, "not finite"),
        ({"mom2.mom2": np.arange(64.0).reshape(8, 8)}, 8, "symmetric"),
    ],
)
def test_a_file_that_cannot_be_is_refused(changes: dict[str, object], d_in: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(MomentError, match=message):
        SecondMoment.read_npz(published(tmp_path / "m.npz", **changes), d_in=d_in)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", cov=np.eye(3))
    with pytest.raises(MomentError, match=r"expected the \.npz of ROME's layer_stats"):
        SecondMoment.read_npz(tmp_path / "other.npz", d_in=3)
