-- Units that were given up and have not been done since, with what was said of them.
--
-- unique: [run_id, unit, number]
-- not_null: [run_id, unit, number, message]
SELECT
    run_id, spec->>'unit' AS unit, row_number() OVER (PARTITION BY run_id, unit ORDER BY unit_id) AS number,
    message, spec->>'traceback' AS traceback
FROM commits AS failed
WHERE status <> 'done' AND NOT EXISTS (
    FROM commits AS done
    WHERE done.status = 'done' AND done.run_id = failed.run_id AND done.unit_id = failed.spec->>'unit'
)
ORDER BY ALL
