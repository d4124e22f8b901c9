-- What each run's batches do right after they are written, as the MALMEN paper counts (its figures 5 and 8): ES, GS and LS
-- are shares of answer tokens whose argmax is right under teacher forcing, on the rewrite, paraphrase and neighborhood
-- prompts of the batch; the mean residual is a mean over modules and batches.
--
-- unique: [run_id]
-- not_null: [run_id, model, editor, batch_size, n_batches]
-- rates: [edit_success, generalisation_success, locality_success]
-- references: {run_id: runs.run_id}
WITH shares AS (
    SELECT
        run_id,
        avg(n_correct_new / n_new) FILTER (WHERE kind = 'rewrite') AS edit_success,
        avg(n_correct_new / n_new) FILTER (WHERE kind = 'paraphrase') AS generalisation_success,
        avg(n_correct_true / n_true) FILTER (WHERE kind = 'neighborhood') AS locality_success
    FROM scores_once
    WHERE purpose = 'own'
    GROUP BY run_id
),
residuals AS (
    SELECT run_id, avg(mean_residual) AS mean_residual, count(DISTINCT round) AS n_batches FROM rounds GROUP BY run_id
)
SELECT
    r.*, run.hparams_digest, residuals.n_batches,
    shares.edit_success, shares.generalisation_success, shares.locality_success, residuals.mean_residual
FROM run_latest AS run
JOIN run_columns AS r USING (run_id)
JOIN shares USING (run_id)
JOIN residuals USING (run_id)
ORDER BY run.model, run.editor, run.batch_size, run.run_id
