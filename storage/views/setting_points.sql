-- step
-- The points of all runs of a setting put together: the mean over samples (a sample's mean is over its seeds), and an interval
-- of 95 %. A rate is worth `answers` independent answers: those of its facts, each fact counted once; or, where samples differ
-- by more than their facts explain, those of the spread between samples, if that is less; and less again for the spread between
-- seeds. What is no rate has the wider of the same intervals by Student's t. A single number has none.
WITH runs_of AS (
    SELECT
        setting, draw, seed, run_points.* EXCLUDE (run_id),
        -- All runs are asked the same questions and texts.
        n * CASE
            WHEN curve IN ('downstream', 'benchmarks', 'free texts') OR metric IN ('benchmark_f1', 'benchmark_accuracy')
                THEN 1 / count(*) OVER (PARTITION BY setting, curve, name, scored, metric, edits)
            -- Seeds take the same facts again; samples may share some.
            ELSE coalesce(share_of_its_own, 1) / count(*) OVER (PARTITION BY setting, curve, name, scored, metric, edits, draw)
        END AS n_own
    FROM run_points JOIN run_setting USING (run_id) LEFT JOIN shared_facts USING (setting)
),
samples AS (
    SELECT
        setting, curve, name, scored, metric, edits, bounded, draw,
        count(*) AS n_runs, avg(mean) AS mean, sum(n) AS n, sum(n_own) AS n_own, avg(variance) AS variance,
        avg(variance / nullif(n - 1, 0)) AS squared_error, max(from_age) AS from_age
    FROM runs_of
    GROUP BY ALL
),
seeds AS (
    SELECT setting, curve, name, scored, metric, edits, count(*) AS n_seeds, var_samp(mean) / n_seeds AS error_of_seeds
    FROM (SELECT setting, curve, name, scored, metric, edits, seed, avg(mean) AS mean FROM runs_of GROUP BY ALL)
    GROUP BY ALL
    HAVING n_seeds > 1
),
pooled AS (
    SELECT
        setting, curve, name, scored, metric, edits, bounded,
        sum(n_runs)::BIGINT AS n_runs, count(*) AS n_samples, sum(n)::BIGINT AS n, sum(n_own) AS n_facts,
        avg(mean) AS mean, var_samp(mean) AS spread, avg(squared_error) AS squared_error,
        avg(variance) + var_pop(mean) AS variance, max(from_age) AS from_age
    FROM samples
    GROUP BY ALL
),
errors AS (
    SELECT
        *,
        n_samples > 1 AND is_spread(spread, squared_error, n_samples) AS by_sample,
        CASE WHEN by_sample THEN spread / n_samples END AS error_of_samples
    FROM pooled LEFT JOIN seeds USING (setting, curve, name, scored, metric, edits)
),
worth AS (
    SELECT
        *,
        1 / (
            -- S near 0 is about three times the rate that is: it is worth a third of as many answers.
            1 / least(
                answers_of_facts(CASE WHEN metric = 'score' AND mean <= 0 THEN n_facts / 3 ELSE n_facts END, mean, variance),
                answers_of_error(mean, error_of_samples, n_samples - 1)
            )
            + coalesce(1 / answers_of_error(mean, error_of_seeds, n_seeds - 1), 0)
        ) AS answers,
        nullif(sqrt(
            pow(coalesce(greatest(
                half_width(variance / nullif(n_facts - 1, 0), n_facts - 1), half_width(error_of_samples, n_samples - 1)
            ), 0), 2)
            + pow(coalesce(half_width(error_of_seeds, n_seeds - 1), 0), 2)
        ), 0) AS half
    FROM errors
)
SELECT
    setting, curve, name, scored, metric, edits, mean, sqrt(spread) AS sd,
    CASE WHEN bounded THEN rate_low(mean, answers) ELSE mean - half END AS low,
    CASE WHEN bounded THEN rate_high(mean, answers) ELSE mean + half END AS high,
    n_runs, n_samples, n_seeds, n, n_facts, by_sample, from_age
FROM worth
