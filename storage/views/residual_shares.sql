-- What share of each wanted change arrives where a ridge holds it back (MEMIT's λ): the ridge beside the median kᵀC⁻¹k of the
-- run's own keys, what a single edit of that size would deliver, q / (ridge + q), and what the rounds have delivered,
-- 1 - ‖ΔK - R‖ / ‖R‖ (medians).  Of a batch less arrives than of one edit alone where its keys are alike.
--
-- unique: [run_id, parameter]
-- not_null: [run_id, model, editor, batch_size, parameter, n_rounds, ridge, median_q, expected_alone]
-- references: {run_id: runs.run_id}
WITH sizes AS (SELECT run_id, parameter, median(q) AS median_q FROM edit_updates WHERE q IS NOT NULL GROUP BY ALL),
held AS (
    SELECT run_id, parameter, count(*) AS n_rounds, median(ridge) AS ridge, 1 - median(shortfall) AS arrived
    FROM rounds WHERE ridge > 0 GROUP BY ALL
)
SELECT
    run.run_id, run.model, run.editor, run.variant, run.batch_size, parameter, n_rounds, ridge, median_q,
    ridge / median_q AS times_median_q,
    median_q / (ridge + median_q) AS expected_alone,
    arrived
FROM held JOIN sizes USING (run_id, parameter) JOIN run_latest AS run USING (run_id)
ORDER BY run.model, run.editor, run.run_id, parameter
