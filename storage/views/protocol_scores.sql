-- ES, PS, NS and S of each run under every scoring protocol: each edit right after its own round (of the baseline: each
-- fact), mean over a fact's prompts of a kind, then over facts; S is the harmonic mean of the three, 0 if one of them is 0.
-- `easyedit` counts as that toolkit does: answer tokens, and for neighborhood prompts agreement with the unedited model.
--
-- unique: [run_id, scoring_protocol]
-- not_null: [run_id, scoring_protocol, n_facts]
-- rates: [efficacy, paraphrase, neighborhood, score]
-- accepted: {scoring_protocol: [nll_mean, nll_sum, argmax, token, exact, contained, easyedit]}
-- references: {run_id: runs.run_id}
WITH long AS (
    SELECT
        run_id, fact_id, edited_at, kind,
        unnest([
            {'scoring_protocol': 'nll_mean', 'value': nll_mean::DOUBLE},
            {'scoring_protocol': 'nll_sum', 'value': nll_sum::DOUBLE},
            {'scoring_protocol': 'argmax', 'value': argmax::DOUBLE},
            {'scoring_protocol': 'token', 'value': token},
            {'scoring_protocol': 'exact', 'value': exact::DOUBLE},
            {'scoring_protocol': 'contained', 'value': contained::DOUBLE},
            {'scoring_protocol': 'easyedit', 'value': CASE WHEN kind = 'neighborhood' THEN agreement ELSE token END}
        ], recursive := true)
    FROM probe_outcomes
    WHERE purpose IN ('own', 'baseline')
),
per_fact AS (
    SELECT run_id, scoring_protocol, fact_id, edited_at, kind, avg(value) AS rate FROM long GROUP BY ALL
),
rates AS (
    SELECT
        run_id, scoring_protocol,
        count(DISTINCT (fact_id, edited_at)) AS n_facts,
        avg(rate) FILTER (WHERE kind = 'rewrite') AS efficacy,
        avg(rate) FILTER (WHERE kind = 'paraphrase') AS paraphrase,
        avg(rate) FILTER (WHERE kind = 'neighborhood') AS neighborhood
    FROM per_fact
    GROUP BY ALL
)
SELECT
    runs.model, runs.editor, runs.batch_size, runs.mode, runs.sample, rates.*,
    harmonic_mean(efficacy, paraphrase, neighborhood) AS score
FROM rates JOIN runs USING (run_id)
ORDER BY model, editor, batch_size, run_id, scoring_protocol
