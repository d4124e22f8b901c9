-- Every curve by setting, over its samples and seeds, each point with an interval of 95 % as in `setting_summary`. `curve` and
-- `name` say what is drawn: `editing` (window 5, window 50), `forgetting`, `downstream` (every metric of each benchmark),
-- `benchmarks` (the metric that the definition of each names first), `free texts`, `perplexity`, `drift` (parameters).
--
-- unique: [setting, curve, name, metric, edits]
-- not_null: [setting, curve, name, metric, edits, mean, n_runs]
SELECT
    model, editor, variant, preset, protocol, layers, batch_size, mode, facts, guard, moments, curve, name, metric, edits, mean, sd, low, high,
    CASE WHEN by_sample THEN 'sample' WHEN low IS NOT NULL THEN 'fact' END AS clustered_by,
    n_runs, n_samples, coalesce(n_seeds, 1) AS n_seeds, n, round(n_facts)::BIGINT AS n_facts, setting, pool
FROM setting_points JOIN settings USING (setting)
WHERE curve <> 'summary'
ORDER BY model, editor, batch_size, layers, setting, curve, name, metric, edits
