-- One row per run: of the edits that were right when applied, what the last checkpoint finds forgotten, what any checkpoint
-- found forgotten (as the forgetting paper counts, arXiv 2401.07453), what came back, and the half-life: the age in edits at
-- which the first tenth of retention_by_age begins that retains at most half; NULL if none does.
--
-- unique: [run_id]
-- not_null: [run_id, edits]
-- rates: [forgotten, forgotten_ever, recovered]
-- references: {run_id: runs.run_id}
WITH last_check AS (
    SELECT run_id, forgotten, forgotten_ever, recovered, edits
    FROM check_rates
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY edits DESC) = 1
),
half AS (
    SELECT run_id, min(youngest) FILTER (WHERE retained <= 0.5) AS half_life FROM retention_by_age GROUP BY run_id
)
SELECT r.* EXCLUDE (run_id), last_check.*, half.half_life
FROM last_check JOIN run_columns AS r USING (run_id) LEFT JOIN half USING (run_id)
ORDER BY r.model, r.editor, r.batch_size, run_id
