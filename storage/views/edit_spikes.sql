-- Each round beside its run's own history: how many times the median of all earlier rounds are the norm of its update, the step
-- of its drift, and the largest predicted disturbance of its edits (largest over parameters; NULL in the first rounds and where
-- an editor predicts nothing). `is_spike`: one of them is more than 5 times that median, and more than 6 robust standard
-- deviations (median absolute deviations of logarithms) above it, after 10 rounds or more. A spike is a suspect, not a verdict:
-- `palimpsest diagnose RUN` says what the round did.
--
-- unique: [run_id, round]
-- not_null: [run_id, round, edits, is_spike]
-- references: {run_id: runs.run_id}
WITH moved AS (
    SELECT
        run_id, round, max(edits_so_far) AS edits, max(update_norm) AS update_norm,
        max(abs(drift - coalesce(before, 0))) AS drift_step
    FROM (
        SELECT *, lag(drift) OVER (PARTITION BY run_id, parameter ORDER BY round) AS before FROM rounds
    )
    GROUP BY run_id, round
),
predicted AS (
    SELECT
        run_id, round, max(predicted_disturbance) AS predicted_disturbance,
        arg_max(fact_id, predicted_disturbance) AS fact_id
    FROM edit_updates GROUP BY run_id, round
),
logs AS (
    SELECT
        *, ln(nullif(update_norm, 0)) AS log_norm, ln(nullif(drift_step, 0)) AS log_step,
        ln(nullif(predicted_disturbance, 0)) AS log_predicted
    FROM moved LEFT JOIN predicted USING (run_id, round)
),
compared AS (
    SELECT
        *,
        log_norm - median(log_norm) OVER earlier AS norm_above, log_step - median(log_step) OVER earlier AS step_above,
        log_predicted - median(log_predicted) OVER earlier AS predicted_above,
        1.4826 * mad(log_norm) OVER earlier AS norm_sd, 1.4826 * mad(log_step) OVER earlier AS step_sd,
        1.4826 * mad(log_predicted) OVER earlier AS predicted_sd,
        count(*) OVER earlier AS n_earlier
    FROM logs
    WINDOW earlier AS (PARTITION BY run_id ORDER BY round ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT
    r.*, round, edits, fact_id, update_norm, drift_step, predicted_disturbance,
    exp(norm_above) AS norm_ratio, exp(step_above) AS drift_ratio, exp(predicted_above) AS predicted_ratio,
    coalesce(n_earlier >= 10 AND (
        norm_above > greatest(ln(5), 6 * norm_sd) OR step_above > greatest(ln(5), 6 * step_sd)
        OR predicted_above > greatest(ln(5), 6 * predicted_sd)
    ), false) AS is_spike
FROM compared JOIN run_columns AS r USING (run_id)
ORDER BY run_id, round
