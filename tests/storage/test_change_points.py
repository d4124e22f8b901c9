"""Steps are found where they are, and hardly ever where there are none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.change_points import change_point
from storage.sql import query
from storage.store import Store
from tests.storage.test_settings import run

Series = Callable[[np.random.Generator, int], np.ndarray]


def correlated(draw: np.random.Generator, n: int, share: float = 0.5) -> np.ndarray:
    noise, values = draw.normal(size=n), np.zeros(n)
    values[0] = noise[0]
    for i in range(1, n):
        values[i] = share * values[i - 1] + np.sqrt(1 - share**2) * noise[i]
    return values


WITHOUT: dict[str, Series] = {
    "independent": lambda draw, n: draw.normal(size=n),
    "autocorrelated": correlated,
    "drifting": lambda draw, n: draw.normal(size=n) - 4 * (np.arange(n) / n) ** 2,
    "yes or no": lambda draw, n: (draw.random(n) < 0.95).astype(float),
    "yes or no, drifting": lambda draw, n: (draw.random(n) < 0.98 - 0.4 * np.arange(n) / n).astype(float),
}


def is_change(series: np.ndarray) -> bool:
    """As the view has it."""
    found = change_point(series)
    return found is not None and found.p <= 0.01 and found.size >= 1.5


@pytest.mark.parametrize("kind", WITHOUT)
@pytest.mark.parametrize("n", [100, pytest.param(200, marks=pytest.mark.minutes)])
def test_false_alarms_are_rare(kind: str, n: int) -> None:
    draw = np.random.default_rng(n)
    assert np.mean([is_change(WITHOUT[kind](draw, n)) for _ in range(150)]) < 0.05


@pytest.mark.parametrize(
    ("size", "share", "least"),
    [(3, 0.0, 0.97), (3, 0.5, 0.9), *(pytest.param(5, share, 1.0, marks=pytest.mark.minutes) for share in (0.0, 0.5))],
)
def test_steps_are_found_within_their_interval(size: float, share: float, least: float) -> None:
    draw = np.random.default_rng(0)
    found, near, inside = 0, 0, 0
    for _ in range(100):
        place = int(draw.integers(40, 160))
        series = correlated(draw, 200, share) - size * (np.arange(200) >= place) - np.arange(200) / 200
        each = change_point(series)
        assert each is not None
        found += each.p <= 0.01 and each.size >= 1.5 and each.step < 0
        near += abs(each.place - place) <= 2
        inside += each.low <= place <= each.high
    assert found >= 100 * least and near >= 90 and inside >= 93


def test_nothing_can_be_told_of_few_or_equal_values() -> None:
    assert change_point(np.arange(99.0)) is None and change_point(np.ones(200)) is None


def test_an_inflection_of_efficacy_is_dated(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    draw = np.random.default_rng(0)
    works = draw.random(200) < np.where(np.arange(200) < 120, 0.97, 0.2)
    run(store, "a", lambda fact, kind: kind == "neighborhood" or bool(works[fact]), facts=range(200))
    rows = {row["metric"]: row for row in query(store, "SELECT * FROM change_points").to_pylist()}
    assert set(rows) == {"efficacy"}, "neighborhoods never changed"
    assert rows["efficacy"]["is_change"] and rows["efficacy"]["low"] <= 121 <= rows["efficacy"]["high"]
    assert rows["efficacy"]["before"] > 0.9 > 0.3 > rows["efficacy"]["after"]
