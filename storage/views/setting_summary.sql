-- Each setting under each metric, over its samples and seeds: mean, standard deviation of the samples' means (`sd`), and an
-- interval of 95 % (`low` to `high`). A setting is what two runs share but for sample and seed, after equally many edits.
-- `scored`: `own`, each edit right after its round; `final`, on the last model. `clustered_by`: the interval is over `n_facts`
-- different facts, or over samples, where these differ by more than their facts explain; never narrower than over the facts.
-- `n`: values, with repetitions; more than `n_facts` where samples share facts, or seeds repeat them. `forgotten` is compared on
-- the same early edits: only those that at least `from_age` further edits followed count, the least number at which every
-- setting of one model, data set and mode has such edits, after equally many edits. What is no rate (drift, mean_residual) has
-- an interval only over samples. docs/scores.md says how intervals are made, and how often they hold.
--
-- unique: [setting, edits, scored, metric]
-- not_null: [setting, model, editor, batch_size, edits, scored, metric, mean, n_runs]
-- accepted: {scored: [own, final]}
SELECT
    model, editor, variant, preset, protocol, layers, batch_size, mode, facts, dtype, given_contexts, given_targets, guard, moments, edits, scored,
    metric,
    mean, sd, low, high, CASE WHEN by_sample THEN 'sample' WHEN low IS NOT NULL THEN 'fact' END AS clustered_by,
    n_runs, n_samples, coalesce(n_seeds, 1) AS n_seeds, n, round(n_facts)::BIGINT AS n_facts, from_age, hparams_digest,
    setting, pool
FROM setting_points JOIN settings USING (setting)
WHERE curve = 'summary'
ORDER BY model, editor, batch_size, layers, setting, edits, scored DESC, metric
