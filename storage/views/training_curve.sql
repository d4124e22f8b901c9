-- Hyper-network training: losses and gradient norm of each step as means over the last 20 steps, and, at the end of each
-- segment, what one joint edit of validation facts does (ES, GS, LS: shares of answer tokens whose argmax is right).
--
-- unique: [run_id, split, step]
-- not_null: [run_id, model, editor, n_edits, step, split]
-- rates: [edit_success, generalisation_success, locality_success]
-- accepted: {split: [train, validation]}
SELECT
    run_id, model, editor, n_edits, step, split,
    avg(generalisation_loss) OVER w AS generalisation_loss,
    avg(locality_loss) OVER w AS locality_loss,
    avg(gradient_norm) OVER w AS gradient_norm,
    edit_success, generalisation_success, locality_success, mean_residual, mean_ridge
FROM training
WINDOW w AS (PARTITION BY run_id, split ORDER BY step ROWS BETWEEN 19 PRECEDING AND CURRENT ROW)
ORDER BY run_id, split, step
