-- One row per checkpoint of a run. Of the edits that were right when applied (every target token argmax, right after their
-- own round), the share that it finds wrong: now (`forgotten`), and at this or any earlier checkpoint (`forgotten_ever`);
-- `recovered` is the share of those once found wrong that are right now.
SELECT runs.editor, runs.batch_size, runs.model, runs.sample, check_rates.*
FROM check_rates
JOIN runs USING (run_id)
ORDER BY run_id, edits
