-- How the order of a table's runs changes with the scoring protocol: runs of one model, sample, mode and batch size, ranked
-- by S under each protocol (1 is best; equal scores share a rank) beside their rank under nll_mean, the papers' own.
-- `n_flips`: how many other runs of the group are on the other side of this one than they are under nll_mean.
WITH scored AS (
    SELECT p.*, runs.facts_run_id, p.score AS value, r.score AS reference
    FROM protocol_scores AS p
    JOIN runs USING (run_id)
    JOIN protocol_scores AS r ON r.run_id = p.run_id AND r.scoring_protocol = 'nll_mean'
    WHERE p.editor <> 'none' AND p.score IS NOT NULL
),
pairs AS (
    SELECT
        a.run_id, a.scoring_protocol,
        count(*) FILTER (WHERE b.value > a.value) AS n_above,
        count(*) FILTER (WHERE b.reference > a.reference) AS n_above_reference,
        count(*) FILTER (WHERE (a.value - b.value) * (a.reference - b.reference) < 0) AS n_flips
    FROM scored AS a
    JOIN scored AS b
        ON b.scoring_protocol = a.scoring_protocol AND b.model = a.model AND b.facts_run_id = a.facts_run_id
        AND b.sample = a.sample AND b.mode = a.mode AND b.batch_size = a.batch_size
    GROUP BY ALL
)
SELECT
    scored.model, scored.sample, scored.mode, scored.batch_size, scored.scoring_protocol, scored.editor, scored.run_id,
    scored.value AS score, pairs.n_above + 1 AS rank, pairs.n_above_reference + 1 AS rank_by_nll_mean, pairs.n_flips
FROM scored JOIN pairs USING (run_id, scoring_protocol)
ORDER BY scored.model, scored.sample, scored.mode, scored.batch_size, scored.scoring_protocol, rank, scored.run_id
