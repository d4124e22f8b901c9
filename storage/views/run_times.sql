-- What each run took, in seconds of a worker: its edits, its scores, and the training of its network, which runs of one
-- network share (each says the whole). Second moments and prefixes, which all runs share, are in the table `timings`.
-- `total_s` leaves the scores out: papers print training and editing together.
--
-- unique: [run_id]
-- not_null: [run_id, model, editor, batch_size, edits, editing_s, scoring_s, training_s, total_s]
-- references: {run_id: runs.run_id}
WITH spent AS (
    SELECT
        run_id, coalesce(sum(seconds) FILTER (WHERE stage = 'segment'), 0) AS editing_s,
        coalesce(sum(seconds) FILTER (WHERE stage <> 'segment'), 0) AS scoring_s
    FROM timings GROUP BY run_id
),
trainings AS (
    SELECT network, sum(seconds) AS training_s
    FROM timings
    JOIN (SELECT DISTINCT run_id, (spec->'recipe')::VARCHAR AS network FROM commits WHERE kind = 'train') USING (run_id)
    GROUP BY network
)
SELECT
    r.*, latest.edits, editing_s, scoring_s, coalesce(training_s, 0) AS training_s, editing_s + coalesce(training_s, 0) AS total_s
FROM run_latest AS latest
JOIN run_columns AS r USING (run_id)
JOIN spent USING (run_id)
LEFT JOIN trainings ON trainings.network = (latest.spec->'network_recipe')::VARCHAR
WHERE latest.editor <> 'none'
ORDER BY r.model, r.editor, r.batch_size, run_id
