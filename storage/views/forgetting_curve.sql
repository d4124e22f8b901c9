-- One row per checkpoint of a run: what it finds forgotten of the earlier edits, and what came back.
SELECT runs.editor, runs.batch_size, runs.model, runs.sample, check_rates.*
FROM check_rates
JOIN runs USING (run_id)
ORDER BY run_id, edits
