-- What the forgetting paper compares at scale (arXiv 2401.07453, table 3), by setting, means over its runs: efficacy and
-- neighborhoods at the edits' own time, the edits before catastrophic forgetting (`collapsed_at`, of the `n_collapsed` runs that
-- came to it), what the benchmarks lost (`f1_lost`: F1 of the unedited model less that of the last checkpoint, over the same questions), what is
-- forgotten, and `n_disabling`: disabling edits that `palimpsest diagnose` has found.
--
-- unique: [setting, edits]
-- not_null: [setting, model, editor, batch_size, mode, edits, n_runs, n_collapsed, n_disabling]
-- rates: [efficacy, neighborhood, forgotten]
SELECT
    s.model, s.editor, s.preset, s.protocol, s.layers, s.batch_size, s.mode, s.edits, count(*) AS n_runs,
    avg(s.efficacy) AS efficacy, avg(s.neighborhood) AS neighborhood,
    count(s.collapsed_at) AS n_collapsed, avg(s.collapsed_at) AS collapsed_at,
    avg(unedited.f1 - s.benchmark_f1) AS f1_lost, avg(s.forgotten) AS forgotten,
    coalesce(sum(d.n), 0)::BIGINT AS n_disabling, setting
FROM run_summary AS s
JOIN run_setting USING (run_id)
LEFT JOIN (
    SELECT run_id, avg(f1) AS f1 FROM benchmark_metrics WHERE part IS NULL AND is_start GROUP BY run_id
) AS unedited ON unedited.run_id = s.run_id
LEFT JOIN (SELECT run_id, count(*) AS n FROM disabling_edits GROUP BY run_id) AS d ON d.run_id = s.run_id
GROUP BY ALL
ORDER BY s.model, s.editor, s.batch_size, s.edits, setting
