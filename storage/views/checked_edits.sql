-- kept
-- One row per edit and checkpoint that looked at it again: whether it was right when applied (every target token argmax,
-- right after its own round), what is left of it, and its age, the number of edits made since. At age 0 nothing has
-- followed an edit: it was not yet there to be forgotten. Of sequential runs: an independent batch begins on the unedited
-- model, and follows nothing.
WITH later AS MATERIALIZED (
    SELECT
        run_id, fact_id, edited_at, scored_at, edits_so_far,
        NOT is_argmax(n_correct_new, n_new) AS wrong_now,
        prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new) AS preferred
    FROM scores_once
    WHERE purpose = 'retention' AND kind = 'rewrite' AND run_id IN (SELECT run_id FROM runs WHERE mode = 'sequential')
)
SELECT
    later.*,
    later.edits_so_far - applied.edits_so_far AS age,
    is_argmax(applied.n_correct_new, applied.n_new) AS was_right
FROM later
JOIN scores_once AS applied
    ON applied.run_id = later.run_id AND applied.fact_id = later.fact_id AND applied.edited_at = later.edited_at
WHERE applied.purpose = 'own' AND applied.kind = 'rewrite'
    -- Of runs without such a check nothing more is read.
    AND applied.run_id IN (SELECT run_id FROM later)
