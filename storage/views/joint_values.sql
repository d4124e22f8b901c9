-- step
-- Of each edit right after its batch, the shares of answer tokens whose argmax is right, as the MALMEN paper counts.
SELECT run_id, fact_id, metric, avg(share) AS value
FROM (
    SELECT
        run_id, fact_id,
        CASE kind
            WHEN 'rewrite' THEN 'edit_success' WHEN 'paraphrase' THEN 'generalisation_success'
            WHEN 'neighborhood' THEN 'locality_success'
        END AS metric,
        CASE kind WHEN 'neighborhood' THEN n_correct_true / n_true ELSE n_correct_new / n_new END AS share
    FROM scores_once
    WHERE purpose = 'own' AND kind IN ('rewrite', 'paraphrase', 'neighborhood')
)
GROUP BY ALL
