-- The perplexity of held-out texts against the number of edits: exp of the mean NLL over all tokens that have one before
-- them. A text whose NLL is not finite makes it NULL, and is counted in `n_lost`.
--
-- unique: [run_id, edits]
-- not_null: [run_id, edits, n_texts, n_lost]
-- references: {run_id: runs.run_id}
SELECT
    r.* EXCLUDE (run_id), t.run_id, t.scored_at, t.edits_so_far AS edits,
    count(*) AS n_texts, sum(t.n_tokens) AS n_scored_tokens, count(*) - count(nll) AS n_lost,
    CASE WHEN n_lost = 0 AND sum(nll) / n_scored_tokens < 700 THEN exp(sum(nll) / n_scored_tokens) END AS perplexity
FROM text_nlls AS t JOIN run_columns AS r USING (run_id)
GROUP BY ALL ORDER BY t.run_id, edits
