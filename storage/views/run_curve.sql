-- Every curve of `setting_curve` by run: samples and seeds apart, each point with an interval of 95 % over its facts or questions.
--
-- unique: [run_id, curve, name, metric, edits]
-- not_null: [run_id, curve, name, metric, edits, mean]
-- references: {run_id: runs.run_id}
SELECT
    r.*, facts, curve, name, metric, edits, mean,
    CASE WHEN bounded THEN rate_low(mean, answers_of_facts(n, mean, variance))
        ELSE mean - half_width(variance / nullif(n - 1, 0), n - 1) END AS low,
    CASE WHEN bounded THEN rate_high(mean, answers_of_facts(n, mean, variance))
        ELSE mean + half_width(variance / nullif(n - 1, 0), n - 1) END AS high,
    n
FROM run_points JOIN run_columns AS r USING (run_id) JOIN settings USING (setting)
WHERE curve <> 'summary'
ORDER BY r.model, r.editor, r.batch_size, run_id, curve, name, metric, edits
