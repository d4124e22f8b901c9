-- What is left of earlier edits by their age, which is the number of edits made since: in ten equal parts of a run's longest
-- age, over all checkpoints. `retained` counts, of the edits that were right when applied (every target token argmax) and
-- that a later round followed, those that a check finds right.
--
-- unique: [run_id, part]
-- not_null: [run_id, part, youngest, oldest, n_checks, retained]
-- rates: [retained]
-- references: {run_id: runs.run_id}
WITH checked AS (
    SELECT run_id, age, NOT wrong_now AS is_right, max(age) OVER (PARTITION BY run_id) AS longest
    FROM checked_edits
    WHERE was_right AND age > 0
),
parts AS (
    SELECT *, least(9, floor(10 * age / longest))::INT AS part FROM checked
)
SELECT
    r.* EXCLUDE (run_id), run_id, part,
    min(age) AS youngest, max(age) AS oldest, count(*) AS n_checks, avg(is_right::INT) AS retained
FROM parts JOIN run_columns AS r USING (run_id)
GROUP BY ALL
ORDER BY run_id, part
