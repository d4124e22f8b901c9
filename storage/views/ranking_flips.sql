-- How the order of a table's runs changes with the scoring protocol: all runs of one model, precision and mode that have
-- edited the same facts (`n_facts` of them: a run that is half done is compared with none that went further), ranked by ES,
-- PS, NS and S under each protocol (1 is best; equal values share a rank) beside their rank under nll_mean, the papers' own.
-- `n_flips`: how many other runs stand on the other side of this one than they do under nll_mean.
--
-- unique: [run_id, metric, scoring_protocol]
-- not_null: [run_id, metric, scoring_protocol, n_facts, value, rank, rank_by_nll_mean, n_flips]
-- rates: [value]
-- accepted: {metric: [efficacy, paraphrase, neighborhood, score]}
-- references: {run_id: runs.run_id}
WITH edited AS (
    SELECT run_id, bit_xor(hash(fact_id)) AS facts
    FROM (SELECT DISTINCT run_id, fact_id FROM fact_scores WHERE purpose = 'own')
    GROUP BY run_id
),
long AS (
    SELECT
        p.run_id, p.scoring_protocol, p.model, p.sample, p.mode, p.editor, p.batch_size, p.n_facts,
        (runs.model_digest, runs.dtype, runs.facts_run_id, runs.mode, edited.facts) AS setting,
        unnest([
            -- Sums of the same rates in another order differ in their last bits.
            {'metric': 'efficacy', 'value': round(p.efficacy, 12)}, {'metric': 'paraphrase', 'value': round(p.paraphrase, 12)},
            {'metric': 'neighborhood', 'value': round(p.neighborhood, 12)}, {'metric': 'score', 'value': round(p.score, 12)}
        ], recursive := true)
    FROM protocol_scores AS p JOIN runs USING (run_id) JOIN edited USING (run_id)
    WHERE p.editor <> 'none' AND p.scored = 'own'
),
scored AS (
    SELECT long.*, usual.value AS reference
    FROM long
    JOIN long AS usual
        ON usual.run_id = long.run_id AND usual.metric = long.metric AND usual.scoring_protocol = 'nll_mean'
    WHERE long.value IS NOT NULL AND usual.value IS NOT NULL
),
pairs AS (
    SELECT
        a.run_id, a.scoring_protocol, a.metric,
        count(*) FILTER (WHERE b.value > a.value) AS n_above,
        count(*) FILTER (WHERE b.reference > a.reference) AS n_above_reference,
        count(*) FILTER (WHERE (a.value - b.value) * (a.reference - b.reference) < 0) AS n_flips
    FROM scored AS a
    JOIN scored AS b
        ON b.scoring_protocol = a.scoring_protocol AND b.metric = a.metric
        AND b.setting IS NOT DISTINCT FROM a.setting
    GROUP BY ALL
)
SELECT
    scored.model, scored.sample, scored.mode, scored.metric, scored.scoring_protocol, scored.editor, scored.batch_size,
    scored.run_id, scored.n_facts, scored.value, pairs.n_above + 1 AS rank, pairs.n_above_reference + 1 AS rank_by_nll_mean, pairs.n_flips
FROM scored JOIN pairs USING (run_id, scoring_protocol, metric)
ORDER BY scored.model, scored.sample, scored.mode, scored.metric, scored.scoring_protocol, rank, scored.run_id
