-- step
-- The rates of each edit with its position among the run's edits (NULL: the baseline's).
SELECT own.*, edits.position
FROM own_rates AS own
LEFT JOIN edits ON edits.run_id = own.run_id AND edits.fact_id = own.fact_id AND edits.round = own.edited_at
