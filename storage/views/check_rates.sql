-- One row per checkpoint of a run: the forgetting curve without what its run is.
WITH later AS MATERIALIZED (
    SELECT
        run_id, fact_id, edited_at, scored_at, edits_so_far,
        NOT coalesce(n_correct_new = n_new, false) AS wrong_now,
        coalesce(nll_new / n_new < nll_true / n_true, false) AS preferred
    FROM fact_scores
    WHERE purpose = 'retention' AND kind = 'rewrite'
),
checked AS (
    -- Two commands with other samples, or two stores put together, may have scored the same edit.
    SELECT DISTINCT ON (later.run_id, later.fact_id, later.edited_at, later.scored_at)
        later.*,
        coalesce(applied.n_correct_new = applied.n_new, false) AS was_right
    FROM later
    JOIN fact_scores AS applied
        ON applied.run_id = later.run_id AND applied.fact_id = later.fact_id AND applied.edited_at = later.edited_at
    WHERE applied.purpose = 'own' AND applied.kind = 'rewrite'
        -- Of runs without such a check nothing more is read.
        AND applied.run_id IN (SELECT run_id FROM later)
),
with_history AS (
    SELECT
        *,
        bool_or(wrong_now) OVER (
            PARTITION BY run_id, fact_id ORDER BY scored_at ROWS UNBOUNDED PRECEDING
        ) AS wrong_ever
    FROM checked
)
SELECT
    run_id,
    scored_at,
    edits_so_far AS edits,
    count(*) AS n_scored,
    count(*) FILTER (WHERE was_right) AS n_right_when_applied,
    count(*) FILTER (WHERE was_right AND wrong_now) AS n_forgotten,
    n_forgotten / nullif(n_right_when_applied, 0) AS forgotten,
    count(*) FILTER (WHERE was_right AND wrong_ever) / nullif(n_right_when_applied, 0) AS forgotten_ever,
    count(*) FILTER (WHERE was_right AND wrong_ever AND NOT wrong_now)
        / nullif(count(*) FILTER (WHERE was_right AND wrong_ever), 0) AS recovered,
    avg(preferred::INT) AS retention,
    avg((NOT wrong_now)::INT) AS retention_accuracy
FROM with_history
GROUP BY ALL
