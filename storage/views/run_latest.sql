-- step
-- One row per run: what it is, and how far it has got. A run's row is written once, by its first unit.
SELECT
    runs.*,
    coalesce(progress.rounds, 0) AS rounds,
    coalesce(progress.edits, 0) AS edits
FROM runs
LEFT JOIN (
    SELECT run_id, max(round) + 1 AS rounds, count(*) AS edits FROM edits GROUP BY run_id
) AS progress USING (run_id)
