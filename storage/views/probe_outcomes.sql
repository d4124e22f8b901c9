-- One row per scored probe: whether it holds under each scoring protocol (1 or 0; `token` and `agreement` are shares of the
-- answer's tokens). Neighborhood probes expect the true answer, all others the new one. What the model did not give (NaN)
-- fails; what was not asked for (no free text, no unedited model) is NULL. docs/scores.md defines each column.
--
-- unique: [run_id, purpose, probe_id, edited_at, scored_at]
-- not_null: [run_id, purpose, probe_id, kind, nll_mean, nll_sum, argmax, token, is_nan]
-- rates: [nll_mean, nll_sum, argmax, token, begins, exact, contained, agreement]
-- accepted:
--   purpose: [own, retention, baseline]
--   kind: [rewrite, paraphrase, neighborhood, question, completion]
-- references: {run_id: runs.run_id}
WITH expected AS (
    SELECT
        runs.run_id, probes.probe_id,
        CASE WHEN probes.kind = 'neighborhood' THEN probes.target_true ELSE probes.target_new END AS answer
    FROM runs JOIN probes ON probes.run_id = runs.facts_run_id
),
-- Twice from the table: DuckDB 2.0.0 waits for ever for a LIMIT over rows that it keeps for two readers.
sides AS NOT MATERIALIZED (
    SELECT
        *,
        kind = 'neighborhood' AS keeps,
        CASE WHEN keeps THEN nll_true ELSE nll_new END AS nll_wanted,
        CASE WHEN keeps THEN nll_new ELSE nll_true END AS nll_other,
        CASE WHEN keeps THEN n_true ELSE n_new END AS n_wanted,
        CASE WHEN keeps THEN n_correct_true ELSE n_correct_new END AS n_right,
        CASE WHEN keeps THEN argmax_true ELSE argmax_new END AS argmax_wanted
    FROM scores_once
),
unedited AS (
    SELECT run_id AS baseline_run_id, probe_id, argmax_wanted AS argmax_unedited FROM sides WHERE purpose = 'baseline'
)
SELECT
    sides.run_id, purpose, fact_id, sides.probe_id, kind, edited_at, scored_at, edits_so_far, is_nan,
    CASE WHEN keeps THEN prefers_true(nll_new, n_new, nll_true, n_true)
        ELSE prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new) END::INT AS nll_mean,
    CASE WHEN n_true = 0 THEN is_argmax(n_right, n_wanted) ELSE coalesce(nll_wanted < nll_other, false) END::INT AS nll_sum,
    is_argmax(n_right, n_wanted)::INT AS argmax,
    coalesce(n_right / n_wanted, 0) AS token,
    CASE WHEN text IS NULL THEN NULL WHEN is_nan THEN 0 ELSE starts_with(ltrim(text, E' \t\n'), trim(answer))::INT END AS begins,
    CASE
        WHEN text IS NULL THEN NULL
        WHEN is_nan THEN 0
        ELSE (
            starts_with(ltrim(text, E' \t\n'), trim(answer))
            AND regexp_matches(ltrim(text, E' \t\n')[length(trim(answer)) + 1 :], '^\s*($|[\n;:!?)"”\]。，！？]|[.,]($|[^0-9]))')
        )::INT
    END AS exact,
    CASE WHEN text IS NULL THEN NULL WHEN is_nan THEN 0 ELSE contains(text, trim(answer))::INT END AS contained,
    CASE
        WHEN argmax_unedited IS NULL THEN NULL
        WHEN is_nan THEN 0
        ELSE list_sum(list_transform(range(1, len(argmax_wanted) + 1), lambda i: (argmax_wanted[i] = argmax_unedited[i])::INT))
            / len(argmax_wanted)
    END AS agreement
FROM sides
JOIN runs USING (run_id)
LEFT JOIN expected USING (run_id, probe_id)
LEFT JOIN unedited ON unedited.probe_id = sides.probe_id
    AND unedited.baseline_run_id = coalesce(runs.baseline_run_id, runs.run_id)
