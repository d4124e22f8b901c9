-- How far each edited parameter has moved: drift = ‖W - W0‖ / ‖W0‖ (Frobenius), and the same norm per value.
--
-- unique: [run_id, parameter, round]
-- not_null: [run_id, parameter, round, edits, outcome]
-- accepted: {outcome: [edited, unchanged, unsolved, nan, guarded]}
-- references: {run_id: runs.run_id}
SELECT
    r.* EXCLUDE (run_id), rounds.run_id, rounds.round, rounds.edits_so_far AS edits,
    rounds.parameter, rounds.outcome, rounds.update_norm, rounds.drift, rounds.drift_per_value, rounds.shortfall
FROM rounds
JOIN run_columns AS r USING (run_id)
ORDER BY rounds.run_id, rounds.parameter, rounds.round
