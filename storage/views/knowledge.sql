-- What a model knew of each fact before any edit: whether the true answer's first token is the likeliest behind the prompt, all
-- its tokens are, and the text that the model writes by itself contains it. NULL where a fact has no true answer, or does not
-- fit.
--
-- unique: [run_id, fact_id]
-- not_null: [run_id, model, fact_id, position]
SELECT
    a.run_id, a.model, a.facts_run_id, a.position, a.fact_id, f.relation, f.prompt, f.target_true,
    a.first_token, a.all_tokens,
    CASE WHEN a.n_tokens IS NOT NULL THEN coalesce(contains(a.text, trim(f.target_true)), false) END AS free_text,
    a.rank, a.probability, exp(-a.nll) AS answer_probability, a.text
FROM asked_facts AS a
JOIN facts AS f ON f.run_id = a.facts_run_id AND f.fact_id = a.fact_id
ORDER BY a.run_id, a.position
