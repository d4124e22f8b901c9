-- How far each run is, and each preparation: units that are done, edits, and units that were given up (docs/stores.md).
--
-- unique: [run_id]
-- not_null: [run_id, model, what, units, given_up]
SELECT
    run_id, coalesce(model, '') AS model, coalesce(editor, kind) AS what, batch_size, units, edits,
    coalesce(given_up, 0) AS given_up
FROM (
    SELECT run_id, CASE WHEN count(DISTINCT kind) = 1 THEN min(kind) ELSE 'several' END AS kind, count(*) FILTER (WHERE status = 'done') AS units
    FROM commits
    WHERE kind <> 'recipe'
    GROUP BY run_id
)
LEFT JOIN (SELECT run_id, count(DISTINCT unit) AS given_up FROM failures GROUP BY run_id) USING (run_id)
LEFT JOIN run_latest USING (run_id)
ORDER BY editor IS NULL, editor, batch_size, run_id
