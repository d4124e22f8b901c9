-- One row per checkpoint of a run. Of the edits that were right when applied (every target token argmax, right after their
-- own round), the share that it finds wrong: now (`forgotten`), and at this or any earlier checkpoint (`forgotten_ever`);
-- `recovered` is the share of those once found wrong that are right now.
--
-- unique: [run_id, edits]
-- not_null: [run_id, editor, batch_size, edits, n_scored]
-- rates: [forgotten, forgotten_ever, retention, retention_accuracy]
-- references: {run_id: runs.run_id}
SELECT r.* EXCLUDE (run_id), check_rates.*
FROM check_rates
JOIN run_columns AS r USING (run_id)
ORDER BY run_id, edits
