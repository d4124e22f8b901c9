-- kept
-- F1 of each label of a cell, with what it is made of; "no label" is a class of its own.
WITH classes AS (
    SELECT cell, class, sum(gold) AS n_gold, sum(said) AS n_said, sum(hit) AS n_hit, bool_or(is_label) AS is_label
    FROM (
        SELECT cell, gold AS class, 1 AS gold, 0 AS said, (gold = said)::INT AS hit, true AS is_label
        FROM answers_by_part WHERE has_labels
        UNION ALL
        SELECT cell, said, 0, 1, 0, list_contains(labels, said) FROM answers_by_part WHERE has_labels
        UNION ALL
        SELECT DISTINCT cell, unnest(labels), 0, 0, 0, true FROM answers_by_part WHERE has_labels
    )
    GROUP BY cell, class
)
SELECT *, n_gold + n_said AS named, CASE WHEN named = 0 THEN 0 ELSE 2 * n_hit / named END AS f1 FROM classes
