-- Second moments that were to stop by themselves: how far the exact updates of some facts moved since half as many texts,
-- by layer and tokens read; is_last where that was little enough, or the corpus had ended.
--
-- unique: [recipe, layer, n_tokens]
-- not_null: [model, recipe, layer, n_texts, n_tokens, change, is_last]
SELECT DISTINCT model, recipe, layer, n_texts, n_tokens, change, digest IS NOT NULL AS is_last
FROM second_moments
WHERE change IS NOT NULL
ORDER BY model, recipe, layer, n_tokens
