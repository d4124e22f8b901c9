-- Rules of scoring that several marts share.

-- Whether every token of an answer was the likeliest one.
CREATE MACRO is_argmax(n_correct, n) AS coalesce(n_correct = n, false);

-- Whether the new answer is likelier than the true one, each by its mean NLL per token; and the reverse. What the model did not
-- give (NULL) fails. A fact without a true answer (n_true is 0) has only its own tokens to go by: whether each is the likeliest.
CREATE MACRO prefers_new(nll_new, n_new, nll_true, n_true, n_correct_new) AS CASE
    WHEN n_true = 0 THEN is_argmax(n_correct_new, n_new)
    ELSE coalesce(nll_new / n_new < nll_true / n_true, false)
END;
CREATE MACRO prefers_true(nll_new, n_new, nll_true, n_true) AS coalesce(nll_true / n_true < nll_new / n_new, false);

-- The harmonic mean of three rates, 0 where one of them is; NULL where one was not measured.
CREATE MACRO harmonic_mean(a, b, c) AS CASE
    WHEN a IS NULL OR b IS NULL OR c IS NULL THEN NULL
    WHEN least(a, b, c) <= 0 THEN 0
    ELSE 3 / (1 / a + 1 / b + 1 / c)
END;

-- What one edit's rate adds to S by its kind, to first order: S²/3m² of its share in the kind's mean m, over n edits of which
-- n_known have such prompts.
CREATE MACRO share_in_s(s, mean, n, n_known) AS CASE WHEN s > 0 THEN s * s / (3 * mean * mean) * n / n_known ELSE 0 END;

-- An edit's value in S, to first order: S, and what its rates add to it beside the means.
CREATE MACRO value_in_s(s, n, es, mean_es, n_es, ps, mean_ps, n_ps, ns, mean_ns, n_ns) AS
    s + coalesce(share_in_s(s, mean_es, n, n_es) * (es - mean_es), 0)
    + coalesce(share_in_s(s, mean_ps, n, n_ps) * (ps - mean_ps), 0)
    + coalesce(share_in_s(s, mean_ns, n, n_ns) * (ns - mean_ns), 0);

-- The squared standard error of a mean difference of n pairs with half a pair for and half a pair against added; `middle` is the
-- mean of those n + 2.
CREATE MACRO error_of_pairs(n, sum_of_squares, middle) AS ((sum_of_squares + 1) / (n + 2) - middle ** 2) / (n + 1);

-- Intervals of 95 % (docs/scores.md: how, and how often they hold). A rate that is a mean over n facts, whose values differ by
-- `variance` (that of the population), is worth so many independent answers: fewer than n where facts do not answer alike,
-- more where several prompts of each do. Half a fact that fails and half one that does not are added, so that a few failures
-- do not look more certain than they are, and no interval has the width 0. Student's t for the uncertain variance.
CREATE MACRO t_penalty(df) AS pow(1.959963984540054 / t_quantile(0.975, greatest(df, 1)), 2);
CREATE MACRO smoothed(n, mean) AS (n * mean + 0.5) / (n + 1);
CREATE MACRO answers_of_facts(n, mean, variance) AS
    n * smoothed(n, mean) * (1 - smoothed(n, mean)) * t_penalty(n - 1) / ((
        n * (variance + pow(mean - smoothed(n, mean), 2))
        + 0.5 * (pow(smoothed(n, mean), 2) + pow(1 - smoothed(n, mean), 2))
    ) / (n + 1));

-- The same of a rate with a squared standard error that was estimated with so many degrees of freedom; NULL where it is 0.
CREATE MACRO answers_of_error(mean, squared_error, df) AS
    mean * (1 - mean) / nullif(squared_error, 0) * t_penalty(df);

-- Jeffreys' interval of a rate that is worth so many answers.
CREATE MACRO rate_low(mean, answers) AS CASE
    WHEN mean <= 0 THEN 0 ELSE least(mean, beta_quantile(0.025, mean * answers + 0.5, (1 - mean) * answers + 0.5))
END;
CREATE MACRO rate_high(mean, answers) AS CASE
    WHEN mean >= 1 THEN 1 ELSE greatest(mean, beta_quantile(0.975, mean * answers + 0.5, (1 - mean) * answers + 0.5))
END;

-- Whether samples differ by more than half of those would that do not really differ: only then is the spread between them taken
-- for one. `spread` is the variance of their means, `error` the squared standard error of one of them; the median of χ²/df is
-- taken by Wilson's and Hilferty's cube.
CREATE MACRO is_spread(spread, error, n_samples) AS
    spread > coalesce(error, 0) * pow(1 - 2 / (9 * (n_samples - 1)), 3);

-- Half the width of Student's interval of 95 %.
CREATE MACRO half_width(squared_error, df) AS CASE WHEN df >= 1 THEN t_quantile(0.975, df) * sqrt(squared_error) END;

-- Holm's step of the p-value that stands at `rank` of so many; the adjusted one is the largest step up to it.
CREATE MACRO holm(p, n_tests, rank) AS p * (n_tests - rank + 1);
