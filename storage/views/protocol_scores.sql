-- ES, PS, NS and S of each run under every scoring protocol: mean over a fact's prompts of a kind, then over facts; S is the
-- harmonic mean of the three, 0 if one of them is 0. `scored` says on which models: `own`, each edit right after its own round
-- (of the baseline: each fact); `final`, all `n_facts` edits on the model as the last round left it, as AlphaEdit, NAS,
-- UltraEdit and WISE print; `checkpoint`, those made by then on the model after `after_edits` edits.
-- `easyedit` counts as that toolkit does: answer tokens, and for neighborhood prompts agreement with the unedited model.
--
-- unique: [run_id, scored, after_edits, scoring_protocol]
-- not_null: [run_id, scored, scoring_protocol, n_facts]
-- rates: [efficacy, paraphrase, neighborhood, score]
-- accepted: {scoring_protocol: [nll_mean, nll_sum, argmax, token, exact, contained, easyedit], scored: [own, checkpoint, final]}
-- references: {run_id: runs.run_id}
WITH timed AS (
    SELECT
        p.*,
        CASE WHEN purpose <> 'retention' THEN 'own' WHEN last.run_id IS NULL THEN 'checkpoint' ELSE 'final' END AS scored,
        CASE WHEN purpose = 'retention' THEN edits_so_far END AS after_edits
    FROM probe_outcomes AS p LEFT JOIN last_rounds AS last ON last.run_id = p.run_id AND last.scored_at = p.scored_at
),
long AS (
    SELECT
        run_id, scored, after_edits, fact_id, edited_at, kind,
        unnest([
            {'scoring_protocol': 'nll_mean', 'value': nll_mean::DOUBLE},
            {'scoring_protocol': 'nll_sum', 'value': nll_sum::DOUBLE},
            {'scoring_protocol': 'argmax', 'value': argmax::DOUBLE},
            {'scoring_protocol': 'token', 'value': token},
            {'scoring_protocol': 'exact', 'value': exact::DOUBLE},
            {'scoring_protocol': 'contained', 'value': contained::DOUBLE},
            {'scoring_protocol': 'easyedit', 'value': CASE WHEN kind = 'neighborhood' THEN agreement ELSE token END}
        ], recursive := true)
    FROM timed
),
per_fact AS (
    SELECT run_id, scored, after_edits, scoring_protocol, fact_id, edited_at, kind, avg(value) AS rate FROM long GROUP BY ALL
),
rates AS (
    SELECT
        run_id, scored, after_edits, scoring_protocol,
        count(DISTINCT (fact_id, edited_at)) AS n_facts,
        avg(rate) FILTER (WHERE kind = 'rewrite') AS efficacy,
        avg(rate) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
        avg(rate) FILTER (WHERE kind = 'neighborhood') AS neighborhood
    FROM per_fact
    GROUP BY ALL
)
SELECT
    r.* EXCLUDE (run_id), rates.*,
    harmonic_mean(efficacy, paraphrase, neighborhood) AS score
FROM rates JOIN run_columns AS r USING (run_id)
ORDER BY model, editor, batch_size, run_id, scored DESC, after_edits, scoring_protocol
