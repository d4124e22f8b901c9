-- step
-- The last round of each sequential run, after which its model is final. The model of an independent run is never final: each
-- of its batches begins on the unedited one.
SELECT run_id, max(round) AS scored_at FROM edits JOIN runs USING (run_id) WHERE mode = 'sequential' GROUP BY run_id
