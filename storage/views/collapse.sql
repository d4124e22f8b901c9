-- collapsed_at: the first checkpoint from which on the accuracy of new edits (those since the checkpoint before) and of
-- all earlier edits both stay below half of their level at the first checkpoint; NULL if never. By argmax, not by which of
-- the two answers is likelier: in a collapsed model that is a coin toss, and half of a toss is never reached.
WITH checkpoints AS (
    SELECT
        run_id, edits, retention_accuracy AS retention,
        coalesce(lag(edits) OVER (PARTITION BY run_id ORDER BY edits), 0) AS edits_before
    FROM forgetting_curve
),
levels AS (
    SELECT c.run_id, c.edits, c.retention, avg(own.efficacy_accuracy) AS efficacy
    FROM checkpoints AS c
    LEFT JOIN own_scores AS own
        ON own.run_id = c.run_id AND own.position >= c.edits_before AND own.position < c.edits
    GROUP BY ALL
),
judged AS (
    SELECT
        *,
        row_number() OVER w > 1
            AND coalesce(efficacy, 0) < 0.5 * first_value(efficacy) OVER w
            AND coalesce(retention, 0) < 0.5 * first_value(retention) OVER w AS low
    FROM levels
    WINDOW w AS (PARTITION BY run_id ORDER BY edits)
),
final AS (
    SELECT run_id, min(edits) FILTER (WHERE low_from_here) AS collapsed_at
    FROM (
        SELECT
            *,
            bool_and(low) OVER (
                PARTITION BY run_id ORDER BY edits ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
            ) AS low_from_here
        FROM judged
    )
    GROUP BY run_id
)
SELECT * FROM final
