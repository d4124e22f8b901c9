-- kept
-- One row per checkpoint of a run: the forgetting curve without what its run is. Only edits that a later round followed count;
-- where a checkpoint looked at no such edit, its rates are NULL.
WITH with_history AS (
    SELECT
        *,
        age > 0 AS followed,
        age > 0 AND was_right AS learnt,
        bool_or(wrong_now AND age > 0) OVER (
            PARTITION BY run_id, fact_id ORDER BY scored_at ROWS UNBOUNDED PRECEDING
        ) AS wrong_ever
    FROM checked_edits
)
SELECT
    run_id,
    scored_at,
    edits_so_far AS edits,
    count(*) FILTER (WHERE followed) AS n_scored,
    count(*) FILTER (WHERE learnt) AS n_right_when_applied,
    count(*) FILTER (WHERE learnt AND wrong_now) AS n_forgotten,
    count(*) FILTER (WHERE learnt AND wrong_ever) AS n_forgotten_ever,
    n_forgotten / nullif(n_right_when_applied, 0) AS forgotten,
    n_forgotten_ever / nullif(n_right_when_applied, 0) AS forgotten_ever,
    count(*) FILTER (WHERE learnt AND wrong_ever AND NOT wrong_now) / nullif(n_forgotten_ever, 0) AS recovered,
    avg(preferred::INT) FILTER (WHERE followed) AS retention,
    avg((NOT wrong_now)::INT) FILTER (WHERE followed) AS retention_accuracy
FROM with_history
GROUP BY ALL
