-- Edits that a run's guard kept out, each with how many times the median of earlier ones was predicted of it.
--
-- unique: [run_id, round, fact_id]
-- not_null: [run_id, round, fact_id, times_median]
-- references: {run_id: runs.run_id}
SELECT r.*, scored_at AS round, edits_so_far AS edits, item AS fact_id, value AS times_median
FROM measurements JOIN run_columns AS r USING (run_id)
WHERE score = 'guarded'
ORDER BY run_id, round, fact_id
