-- What each edit did to what the model says: the prompt of every probe, and the model's free text behind it, before (the unedited
-- model), right after the edit's own round, at each later check that kept texts (score.texts: all), and on the final model.
-- `expected` and `other`: the answer that the probe should give, and the one that it should not.
--
-- unique: [run_id, fact_id, probe_id, edited_at, scored, after_edits]
-- not_null: [run_id, fact_id, probe_id, kind, scored]
-- accepted: {scored: [before, own, checkpoint, final]}
-- references: {run_id: runs.run_id}
WITH said AS (
    SELECT
        f.run_id, f.fact_id, f.probe_id, f.kind, f.edited_at, f.text, f.edits_so_far AS after_edits,
        CASE WHEN purpose = 'own' THEN 'own' WHEN last.run_id IS NULL THEN 'checkpoint' ELSE 'final' END AS scored,
        CASE WHEN f.kind = 'neighborhood' THEN prefers_true(nll_new, n_new, nll_true, n_true)
            ELSE prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new) END AS holds
    FROM scores_once AS f
    LEFT JOIN last_rounds AS last ON last.run_id = f.run_id AND last.scored_at = f.scored_at
    WHERE purpose IN ('own', 'retention')
),
edited AS (SELECT DISTINCT run_id, fact_id, probe_id, kind, edited_at FROM said),
before AS (
    SELECT
        e.run_id, e.fact_id, e.probe_id, e.kind, e.edited_at, b.text, 0 AS after_edits, 'before' AS scored,
        CASE WHEN e.kind = 'neighborhood' THEN prefers_true(nll_new, n_new, nll_true, n_true)
            ELSE prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new) END AS holds
    FROM edited AS e
    JOIN runs USING (run_id)
    JOIN scores_once AS b ON b.run_id = runs.baseline_run_id AND b.probe_id = e.probe_id
    WHERE b.purpose = 'baseline'
)
SELECT
    r.*, e.fact_id, e.probe_id, e.kind, e.edited_at, e.scored, e.after_edits, probes.prompt,
    CASE WHEN e.kind = 'neighborhood' THEN probes.target_true ELSE probes.target_new END AS expected,
    CASE WHEN e.kind = 'neighborhood' THEN probes.target_new ELSE probes.target_true END AS other,
    e.text, e.holds
FROM (FROM said UNION ALL BY NAME FROM before) AS e
JOIN run_columns AS r USING (run_id)
JOIN runs USING (run_id)
LEFT JOIN probes ON probes.run_id = runs.facts_run_id AND probes.probe_id = e.probe_id
ORDER BY run_id, e.edited_at, e.fact_id, e.kind <> 'rewrite', e.probe_id, e.after_edits, e.scored
