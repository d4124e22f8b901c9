-- Efficacy, paraphrase and neighborhood of new edits against the number of edits, as means over the last `window_edits`
-- (5 and 50) edits; each edit is scored right after its own round.
--
-- unique: [run_id, window_edits, edits]
-- not_null: [run_id, editor, batch_size, window_edits, edits, efficacy]
-- rates: [efficacy, paraphrase, neighborhood, efficacy_accuracy, paraphrase_accuracy, neighborhood_accuracy]
-- accepted: {window_edits: [5, 50]}
-- references: {run_id: runs.run_id}
WITH windows AS (SELECT unnest([5, 50]) AS window_edits),
rolled AS (
    SELECT
        own.run_id,
        windows.window_edits,
        own.position + 1 AS edits,
        avg(other.efficacy) AS efficacy,
        avg(other.paraphrase) AS paraphrase,
        avg(other.neighborhood) AS neighborhood,
        avg(other.efficacy_accuracy) AS efficacy_accuracy,
        avg(other.paraphrase_accuracy) AS paraphrase_accuracy,
        avg(other.neighborhood_accuracy) AS neighborhood_accuracy,
        count(*) AS n_edits
    FROM own_scores AS own
    CROSS JOIN windows
    JOIN own_scores AS other
        ON other.run_id = own.run_id
        AND other.position BETWEEN own.position - windows.window_edits + 1 AND own.position
    GROUP BY own.run_id, windows.window_edits, own.position
),
final AS (
    SELECT runs.editor, runs.batch_size, runs.model, runs.sample, rolled.*
    FROM rolled JOIN runs USING (run_id)
)
SELECT * FROM final ORDER BY run_id, window_edits, edits
