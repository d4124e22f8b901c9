"""Intervals and tests of differences: against scipy and by hand, and how often they hold on simulated rows."""

import itertools
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from storage.functions import _tail_of_signs, add_functions, flip_p
from storage.marts import MACROS, marts

Simulated = np.ndarray
"""[repetitions, samples, facts]: means over a fact's probes."""


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        add_functions(connection)
        connection.execute(MACROS)
        yield connection


def one(sql: duckdb.DuckDBPyConnection, statement: str) -> tuple[Any, ...]:
    """Return the first row of an answer."""
    return sql.execute(statement).fetchall()[0]


def test_quantiles_and_tails_are_scipys(sql: duckdb.DuckDBPyConnection) -> None:
    found = one(sql, "SELECT t_quantile(0.975, 4), t_tail(-2.5, 7), beta_quantile(0.025, 3.5, 9.5)")
    expected = (stats.t.ppf(0.975, 4), 2 * stats.t.sf(2.5, 7), stats.beta.ppf(0.025, 3.5, 9.5))
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_rate_of_plain_answers_has_jeffreys_interval(sql: duckdb.DuckDBPyConnection) -> None:
    """10 facts, 7 of them right: as much worth as 10 answers, but for Student's t and the added half facts."""
    answers, low, high = one(
        sql, "SELECT answers_of_facts(10, 0.7, 0.21) AS answers, rate_low(0.7, answers), rate_high(0.7, answers)"
    )
    worth = 10 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 9)) ** 2
    assert answers == pytest.approx(worth, rel=1e-12)
    interval = stats.beta.ppf([0.025, 0.975], 0.7 * worth + 0.5, 0.3 * worth + 0.5)
    assert (low, high) == pytest.approx(tuple(interval), rel=1e-12)


def test_facts_that_answer_alike_are_worth_more_and_none_is_certain(sql: duckdb.DuckDBPyConnection) -> None:
    alike, plain, perfect = one(
        sql, "SELECT answers_of_facts(50, 0.9, 0), answers_of_facts(50, 0.9, 0.09), answers_of_facts(50, 1, 0)"
    )
    assert 50 * 51 > alike > 5 * plain and perfect == pytest.approx(plain, rel=0.1)
    low, high, least = one(sql, "SELECT rate_low(1, 50), rate_high(0, 50), rate_low(0, 50)")
    assert 0.9 < low < 1 and 0 < high < 0.1 and least == 0


def facts(rng: np.random.Generator, rate: float, shape: tuple[int, ...], *, spread: float = 0.0) -> Simulated:
    """Ten probes of each fact, correlated by 0.3; the samples' own rates have the standard deviation ``spread``."""
    own = np.full(shape[:2], rate)
    if spread:
        weight = rate * (1 - rate) / spread**2 - 1
        own = rng.beta(rate * weight, (1 - rate) * weight, shape[:2])
    weight = (1 - 0.3) / 0.3
    own = np.clip(own, 1e-9, 1 - 1e-9)[..., None]
    return rng.binomial(10, rng.beta(own * weight, (1 - own) * weight, shape)) / 10


def coverage(sql: duckdb.DuckDBPyConnection, values: Simulated, rate: float) -> float:
    """Return how often the interval that the view makes of these runs holds the rate; each repetition is a setting."""
    n_settings, n_samples, n_facts = values.shape
    settings = np.repeat(np.arange(n_settings), n_samples)
    runs = pa.table({"run_id": np.arange(len(settings)), "setting": settings, "draw": list(range(n_samples)) * n_settings,
                     "seed": np.zeros(len(settings), int)})  # fmt: skip
    points = pa.table(
        {"run_id": np.arange(len(settings)), "mean": values.mean(2).ravel(), "variance": values.var(2).ravel()}
    )
    shared = pa.table({"setting": np.arange(n_settings), "share_of_its_own": np.ones(n_settings)})
    sql.register("run_setting", runs)
    sql.register("shared_facts", shared)
    sql.register("points", points)
    sql.execute(f"""CREATE OR REPLACE VIEW run_points AS SELECT
        *, 'summary' AS curve, '' AS name, 'own' AS scored, 'm' AS metric, 1 AS edits, true AS bounded, {n_facts} AS n,
        NULL AS from_age FROM points""")
    (held,) = one(sql, f"SELECT avg((low <= {rate} AND high >= {rate})::INT) FROM ({marts()['setting_points'].sql})")
    return float(held)


@pytest.mark.parametrize("n_facts", [50, 200])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_intervals_over_facts_hold(sql: duckdb.DuckDBPyConnection, rate: float, n_facts: int) -> None:
    held = coverage(sql, facts(np.random.default_rng(0), rate, (4000, 1, n_facts)), rate)
    assert 0.93 <= held <= (1.0 if rate == 0.99 else 0.98)


@pytest.mark.parametrize("n_samples", [3, 4, 8, 20])
@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_intervals_over_samples_hold_with_and_without_a_spread(
    sql: duckdb.DuckDBPyConnection, rate: float, n_samples: int
) -> None:
    rng = np.random.default_rng(n_samples)
    for spread in (0.0, 0.03, 0.06):
        held = coverage(sql, facts(rng, rate, (4000, n_samples, 50), spread=spread), rate)
        assert 0.93 <= held <= 0.985, spread  # 0.98, and three standard errors of 4,000 repetitions


def test_samples_are_never_narrower_than_their_facts(sql: duckdb.DuckDBPyConnection) -> None:
    """Four samples of equal means, and of means that lie far apart, with the same facts in all."""
    alike = np.tile(np.r_[np.zeros(20), np.ones(30)], (1, 4, 1))
    apart = np.stack([np.r_[np.zeros(n), np.ones(50 - n)] for n in (5, 15, 25, 35)])[None]
    points = f"SELECT low, high, by_sample, mean, sd FROM ({marts()['setting_points'].sql})"
    seen = []
    for values in (alike, apart, alike.reshape(1, 1, 200)):
        coverage(sql, values, 0.5)
        seen.append(one(sql, points))
    widths = [high - low for low, high, *_ in seen]
    assert widths[1] > widths[0] == pytest.approx(widths[2], rel=0.02)
    low, high, by_sample, mean, sd = seen[1]
    assert by_sample and mean == pytest.approx(0.6) and sd == pytest.approx(np.std(apart.mean(2)[0], ddof=1))
    worth = 0.6 * 0.4 / (sd**2 / 4) * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 3)) ** 2
    expected = stats.beta.ppf([0.025, 0.975], 0.6 * worth + 0.5, 0.4 * worth + 0.5)
    assert (low, high) == pytest.approx(tuple(expected), rel=1e-9)


def test_the_p_value_of_few_pairs_is_that_of_all_signs() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 8, 12):
        differences = rng.normal(size=n) + 0.4
        patterns = np.array(list(itertools.product((-1, 1), repeat=n)))
        expected = np.mean(np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12)
        assert flip_p(np.r_[differences, 0.0, 0.0]) == pytest.approx(expected)
        scipys = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, axis=-1, vectorized=True
        )
        assert flip_p(differences) == pytest.approx(scipys.pvalue)
    assert flip_p(np.zeros(5)) == 1.0


def test_rare_tails_are_those_of_the_binomial_distribution() -> None:
    for n, plus in ((40, 33), (60, 47), (200, 140), (200, 170)):
        exact = 2 * stats.binom.sf(plus - 1, n, 0.5)
        assert exact < _tail_of_signs(np.ones(n), 2 * plus - n) < 1.15 * exact
        assert flip_p(np.r_[np.ones(plus), -np.ones(n - plus)]) < 1.15 * exact
    assert 2.0**-29 < flip_p(np.ones(30)) < 2.0**-28


@pytest.mark.parametrize(
    ("n", "share"), [(12, 1.0), (40, 0.3), (100, 0.4), (200, 0.3), pytest.param(200, 1.0, marks=pytest.mark.minutes)]
)
@pytest.mark.parametrize("kind", ["yes or no", "of ten probes"])
def test_the_size_of_the_permutation_test(n: int, share: float, kind: str) -> None:
    """Under the null hypothesis it rejects at 0.05 in 4 to 6 % of the cases where 30 pairs or more differ, never in more."""
    rng = np.random.default_rng(n)
    rejected = []
    for _ in range(2000):
        size = np.ones(n) if kind == "yes or no" else rng.integers(1, 11, n) / 10
        rejected.append(flip_p(size * rng.choice([-1, 1], n) * (rng.random(n) < share)) < 0.05)
    # Three standard errors of 2,000 repetitions beside the limits.
    assert np.mean(rejected) < 0.06 + 0.015
    assert n * share < 30 or np.mean(rejected) > 0.04 - 0.013


def test_a_tiny_difference_beside_large_ones_is_no_obstacle() -> None:
    exact = 2 * 0.5**14
    for tiny in (1e-6, 1e-3, 1e-2):
        assert flip_p(np.r_[np.ones(14), tiny]) == pytest.approx(exact, rel=0.01)


def test_very_many_pairs_are_taken_for_normal() -> None:
    draw = np.random.default_rng(0)
    differences = draw.choice([-1.0, 0.0, 1.0], 20_000, p=[0.1, 0.79, 0.11])
    z = differences.sum() / np.sqrt((differences**2).sum())
    assert flip_p(np.r_[differences, differences, differences]) == pytest.approx(
        2 * stats.norm.sf(abs(z) * np.sqrt(3)), rel=1e-6
    )
