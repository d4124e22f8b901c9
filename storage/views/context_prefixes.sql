-- What the prepare stage put in front of prompts: each context prefix, its tokens, its perplexity to the model itself (of the
-- tokens behind the first) and the share of 4-grams that have stood in it before. `unit_id` is one set of prefixes; which run
-- reads which texts is in `runs.contexts`.
--
-- unique: [unit_id, number]
-- not_null: [unit_id, text, n_tokens]
-- rates: [repetition]
SELECT
    unit_id,
    look.number AS number,
    look.text AS text,
    look.n_tokens AS n_tokens,
    look.perplexity AS perplexity,
    look.repetition AS repetition
FROM (
    SELECT
        unit_id,
        unnest(from_json(
            spec->'looks',
            '[{"number": "BIGINT", "text": "VARCHAR", "n_tokens": "BIGINT", "perplexity": "DOUBLE", "repetition": "DOUBLE"}]'
        )) AS look
    FROM commits
    WHERE kind = 'contexts' AND status = 'done'
)
ORDER BY unit_id, number
