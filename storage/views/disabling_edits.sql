-- Edits that broke their run's model, as `palimpsest diagnose` found them last (arXiv 2401.07453, table 2): the norm of the update
-- alone on the state before its round (`norm_in_chain`), as the first edit of the pristine model (`norm_as_first`), and of other
-- facts as first edits (`norm_of_others`, a mean); the share of neighbors that hold after it as a first edit, and of what held
-- before at the end of the window without its round (`without_retention`, `without_neighborhood`).
--
-- unique: [run_id, fact_id]
-- not_null: [run_id, fact_id, verdict]
-- rates: [first_neighborhood, without_retention, without_neighborhood]
-- references: {run_id: runs.run_id}
WITH latest AS (
    SELECT run_id, arg_max(unit_id, finished_at) AS unit_id FROM commits WHERE kind = 'diagnosis' GROUP BY run_id
),
verdicts AS (
    SELECT run_id, unit_id, item AS fact_id, scored_at AS round, text AS verdict
    FROM measurements SEMI JOIN latest USING (run_id, unit_id)
    WHERE score = 'diagnosis' AND name = 'verdict' AND item IS NOT NULL
),
steps AS (
    SELECT
        run_id, unit_id, split_part(item, ' ', 2) AS stage, nullif(regexp_replace(item, '^\S+ \S+ ?', ''), '') AS fact_id, name, value
    FROM measurements WHERE score = 'diagnosis' AND name <> 'verdict'
)
SELECT
    r.*, v.fact_id, v.round,
    any_value(value) FILTER (WHERE stage = 'alone' AND name = 'update_norm' AND s.fact_id = v.fact_id) AS norm_in_chain,
    any_value(value) FILTER (WHERE stage = 'first' AND name = 'update_norm') AS norm_as_first,
    avg(value) FILTER (WHERE stage = 'ordinary' AND name = 'update_norm') AS norm_of_others,
    norm_as_first / nullif(norm_of_others, 0) AS times_others,
    any_value(value) FILTER (WHERE stage = 'first' AND name = 'neighborhood') AS first_neighborhood,
    any_value(value) FILTER (WHERE stage = 'without' AND name = 'retention') AS without_retention,
    any_value(value) FILTER (WHERE stage = 'without' AND name = 'neighborhood') AS without_neighborhood,
    v.verdict
FROM verdicts AS v
JOIN steps AS s USING (run_id, unit_id)
JOIN run_columns AS r USING (run_id)
GROUP BY ALL
ORDER BY run_id, v.round
