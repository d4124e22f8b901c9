-- What a model knew before any edit, by relation: shares of the facts, by first token, by every token and in free text, each
-- with an interval of 95 % over the facts.
--
-- unique: [run_id, relation]
-- not_null: [run_id, model, relation, n_facts]
-- rates: [first_token, all_tokens, free_text, first_token_low, first_token_high]
SELECT
    run_id, model, coalesce(relation, '') AS relation, count(first_token) AS n_facts,
    avg(first_token::INT) AS first_token,
    rate_low(avg(first_token::INT), count(first_token)) AS first_token_low,
    rate_high(avg(first_token::INT), count(first_token)) AS first_token_high,
    avg(all_tokens::INT) AS all_tokens,
    rate_low(avg(all_tokens::INT), count(first_token)) AS all_tokens_low,
    rate_high(avg(all_tokens::INT), count(first_token)) AS all_tokens_high,
    avg(free_text::INT) AS free_text,
    rate_low(avg(free_text::INT), count(first_token)) AS free_text_low,
    rate_high(avg(free_text::INT), count(first_token)) AS free_text_high,
    median(rank) AS median_rank,
    median(probability) AS median_probability
FROM knowledge
GROUP BY run_id, model, coalesce(relation, '')
ORDER BY run_id, relation
