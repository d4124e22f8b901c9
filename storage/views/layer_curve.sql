-- layer_summary with a row per metric.
--
-- unique: [run_id, editor, layer, metric]
-- not_null: [run_id, model, editor, layer, n_edits, metric]
-- rates: [mean, low, high]
SELECT
    run_id, model, editor, protocol, layer, n_edits,
    unnest([
        {'metric': 'efficacy', 'mean': efficacy, 'low': efficacy_low, 'high': efficacy_high},
        {'metric': 'paraphrase', 'mean': paraphrase, 'low': paraphrase_low, 'high': paraphrase_high},
        {'metric': 'neighborhood', 'mean': neighborhood, 'low': neighborhood_low, 'high': neighborhood_high},
        {'metric': 'score', 'mean': score, 'low': score_low, 'high': score_high}
    ], recursive := true)
FROM layer_summary
