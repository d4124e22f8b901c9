-- Where a run's edits abruptly cease to work, or to leave their neighbors alone: the most likely step of the per-edit outcomes
-- right after their rounds, beside a drift, with an interval of 95 % (`edits`, `low` to `high`: the first edits after it).
-- `slope_per_100`: the gradual change before it, per 100 edits. `p`: how often the same outcomes in another order show as clear a
-- step. `is_change`: p is at most 0.01 and the step at least 1.5 standard deviations, which at most 4 in 100 series without a
-- step come to, independent, autocorrelated or drifting (docs/scores.md). Of sequential runs of 100 edits and more.
--
-- unique: [run_id, metric]
-- not_null: [run_id, metric, edits, low, high, p, is_change]
-- rates: [p, before, after]
-- references: {run_id: runs.run_id}
WITH series AS (
    SELECT
        run_id, metric, change_point(list(value ORDER BY position)) AS found, list(position + 1 ORDER BY position) AS edits_at,
        count(*) AS n_edits
    FROM (
        SELECT run_id, position, unnest([
            {'metric': 'efficacy', 'value': efficacy}, {'metric': 'neighborhood', 'value': neighborhood}
        ], recursive := true)
        FROM own_scores SEMI JOIN last_rounds USING (run_id) WHERE position IS NOT NULL
    )
    WHERE value IS NOT NULL
    GROUP BY run_id, metric
)
SELECT
    r.*, metric, n_edits, edits_at[found.place + 1] AS edits, edits_at[found.low + 1] AS low,
    edits_at[found.high + 1] AS high, found.p, found.step,
    found.size AS step_in_sd, 100 * found.slope AS slope_per_100, found.before, found.after,
    found.p <= 0.01 AND found.size >= 1.5 AS is_change
FROM series JOIN run_columns AS r USING (run_id)
WHERE found.place IS NOT NULL
ORDER BY run_id, metric
