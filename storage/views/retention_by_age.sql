-- What is left of earlier edits by their age, which is the number of edits made since: in ten equal parts of a run's longest
-- age, over all checkpoints. `retained` counts, of the edits that were right when applied (every target token argmax), those
-- that a check finds right.
WITH applied AS (
    SELECT run_id, fact_id, edited_at, argmax = 1 AS was_right
    FROM probe_outcomes WHERE purpose = 'own' AND kind = 'rewrite'
),
checked AS (
    SELECT
        o.run_id,
        (o.scored_at - o.edited_at) * runs.batch_size AS age,
        o.argmax AS is_right,
        max(age) OVER (PARTITION BY o.run_id) AS longest
    FROM probe_outcomes AS o
    JOIN applied USING (run_id, fact_id, edited_at)
    JOIN runs USING (run_id)
    WHERE o.purpose = 'retention' AND o.kind = 'rewrite' AND applied.was_right
),
parts AS (
    SELECT *, CASE WHEN longest = 0 THEN 0 ELSE least(9, floor(10 * age / longest))::INT END AS part FROM checked
)
SELECT
    runs.model, runs.editor, runs.batch_size, runs.sample, run_id, part,
    min(age) AS youngest, max(age) AS oldest, count(*) AS n_checks, avg(is_right) AS retained
FROM parts JOIN runs USING (run_id)
GROUP BY ALL
ORDER BY run_id, part
