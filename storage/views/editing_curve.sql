-- Efficacy, paraphrase and neighborhood of new edits against the number of edits, as means over the last `window_edits`
-- (5 and 50) edits; each edit is scored right after its own round.
--
-- unique: [run_id, window_edits, edits]
-- not_null: [run_id, editor, batch_size, window_edits, edits, efficacy]
-- rates: [efficacy, paraphrase, neighborhood, efficacy_accuracy, paraphrase_accuracy, neighborhood_accuracy]
-- accepted: {window_edits: [5, 50]}
-- references: {run_id: runs.run_id}
SELECT r.* EXCLUDE (run_id), editing_windows.* EXCLUDE (
    efficacy_variance, paraphrase_variance, neighborhood_variance
)
FROM editing_windows JOIN run_columns AS r USING (run_id)
ORDER BY run_id, window_edits, edits
