"""The figures, declared: what each shows of which view, along which axes, and how it is split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure: rows of a view, drawn as small multiples."""

    name: str
    title: str
    view: str
    """The view (or a query) whose rows it shows."""
    where: str = "true"
    x: str
    y: str = "mean"
    low: str | None = "low"
    high: str | None = "high"
    mark: Literal["curve", "steps", "heat"] = "curve"
    """``steps`` has an ordinal x axis."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Title of each small multiple by its value of ``columns_by``; all values, by their own names, where it is empty."""
    columns_by: str | None = "metric"
    dash: Mapping[str, list[int]] = field(default_factory=dict)
    """Strokes by value of ``dash_by``."""
    dash_by: str | None = None
    colour: str | None = None
    """What has a colour; what runs are called unless given."""
    x_title: str
    y_title: str = ""
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    is_rate: bool = True
    """Whether y lies in [0, 1], and all small multiples share that axis."""
    x_order: tuple[str, ...] = ()
    y_order: tuple[str, ...] = ()
    """Of a heat map."""


_RATES = {"efficacy": "efficacy", "paraphrase": "paraphrase", "neighborhood": "neighborhood"}
_FURTHEST = "(FROM setting_summary QUALIFY edits = max(edits) OVER (PARTITION BY setting))"
"""Each setting where most of its samples' edits are made: a sample that is half done has a row of its own."""
_MOMENTS = """(
    SELECT *, recipe AS run_id,
        CASE WHEN min(model) OVER () <> max(model) OVER () THEN model || ', ' ELSE '' END || 'layer ' || layer AS of_layer
    FROM moment_curve WHERE change > 0
)"""
_TRACES = """(
    SELECT *, concat_ws(' ', model, 'run ' || right(run_id, 4)) || ', windows of ' || max("window") OVER of_run AS "group"
    FROM trace_summary WINDOW of_run AS (PARTITION BY run_id)
)"""
_JOINT = {
    "edit_success": "ES",
    "generalisation_success": "GS",
    "locality_success": "LS",
    "mean_residual": "mean residual",
}

PANELS: tuple[Panel, ...] = (
    Panel(
        name="editing",
        title="New edits, right after their round (solid: the last 50, dotted: the last 5)",
        view="setting_curve",
        where="curve = 'editing'",
        x="edits",
        x_title="edits",
        columns=_RATES,
        dash={"window 50": [1, 0], "window 5": [1, 3]},
        dash_by="name",
    ),
    Panel(
        name="final-model",
        title="All edits: each at its own time, and on the final model",
        view=_FURTHEST,
        where="metric IN ('efficacy', 'paraphrase', 'neighborhood', 'score')",
        mark="steps",
        x="scored",
        x_title="",
        x_order=("own", "final"),
        columns=_RATES | {"score": "S"},
    ),
    Panel(
        name="forgetting",
        title="Earlier edits at each checkpoint",
        view="setting_curve",
        where="curve = 'forgetting'",
        x="edits",
        x_title="edits",
        columns={
            "forgotten": "forgotten now",
            "forgotten_ever": "ever found forgotten",
            "retention": "still preferred",
        },
    ),
    Panel(
        name="downstream",
        title="Benchmarks, from the unedited model on",
        view="setting_curve",
        where="curve = 'benchmarks'",
        x="edits",
        x_title="edits",
        columns_by="name",
    ),
    Panel(
        name="batch-size",
        title="Scores against batch size",
        view=_FURTHEST,
        where="metric IN ('efficacy', 'paraphrase', 'neighborhood', 'score', 'forgotten')",
        mark="steps",
        x="batch_size",
        x_title="batch size",
        columns=_RATES | {"score": "S", "forgotten": "forgotten, of the same early edits"},
        dash={"own": [1, 0], "final": [4, 3]},
        dash_by="scored",
        colour="series",
    ),
    Panel(
        name="layers-and-batch-sizes",
        title="S on the final model, by layers and batch size",
        view=f"(SELECT *, layers::VARCHAR AS edited_layers FROM {_FURTHEST})",
        where="metric = 'score' AND scored = 'final'",
        mark="heat",
        x="batch_size",
        y="edited_layers",
        colour="mean",
        x_title="batch size",
        y_title="layers",
        columns_by="editor",
    ),
    Panel(
        name="drift",
        title="Distance of each edited parameter from its start, per value (L2)",
        view="setting_curve",
        where="curve = 'drift' AND metric = 'drift_per_value'",
        x="edits",
        x_title="edits",
        columns_by="name",
        is_rate=False,
    ),
    Panel(
        name="update-norm",
        title="Norm of each round's update",
        view="setting_curve",
        where="curve = 'drift' AND metric = 'update_norm'",
        x="edits",
        x_title="edits",
        columns_by="name",
        is_rate=False,
    ),
    Panel(
        name="free-texts",
        title="Free texts",
        view="setting_curve",
        where="curve = 'free texts'",
        x="edits",
        x_title="edits",
        columns={"entropy": "n-gram entropy (bits)", "repetition": "repeated 4-grams"},
        is_rate=False,
    ),
    Panel(
        name="perplexity",
        title="Perplexity of held-out texts",
        view="setting_curve",
        where="curve = 'perplexity'",
        x="edits",
        x_title="edits",
        columns={"perplexity": "perplexity"},
        y_scale="log",
        is_rate=False,
    ),
    Panel(
        name="protocols",
        title="S by scoring protocol: lines that cross are rankings that flip",
        view="protocol_scores",
        where="scored = 'own' AND editor <> 'none'",
        mark="steps",
        x="scoring_protocol",
        y="score",
        low=None,
        high=None,
        x_title="",
        x_order=("nll_mean", "nll_sum", "token", "argmax", "contained", "exact", "easyedit"),
        columns_by=None,
    ),
    Panel(
        name="layers",
        title="Layer search: independent edits of each layer",
        view="(SELECT *, model || ', ' || editor || ', search ' || right(run_id, 4) AS search FROM layer_curve)",
        mark="steps",
        x="layer",
        x_title="layer",
        columns_by="search",
        colour="metric",
    ),
    Panel(
        name="tracing",
        title="Causal tracing: average indirect effect of restoring",
        view=_TRACES,
        mark="heat",
        x="layer",
        y="role",
        colour="effect",
        x_title="layer (of MLP, attention: the window's middle)",
        columns={"hidden": "hidden states", "mlp": "MLP", "attention": "attention"},
        columns_by="kind",
        y_order=("before subject", "earlier subject token", "last subject token", "after subject", "last token"),
    ),
    Panel(
        name="second-moments",
        title="Second moments: change of updates since half the tokens",
        view=_MOMENTS,
        x="n_tokens",
        y="change",
        low=None,
        high=None,
        x_title="tokens read",
        x_scale="log",
        y_scale="log",
        columns_by=None,
        colour="of_layer",
        is_rate=False,
    ),
    Panel(
        name="training",
        title="Hyper-network training, means over 20 steps",
        view="(SELECT *, editor || ' ' || right(run_id, 4) || ', m ' || n_edits AS network FROM training_curve)",
        where="split = 'train'",
        x="step",
        y="generalisation_loss",
        low=None,
        high=None,
        x_title="step",
        y_title="generalisation loss",
        columns_by=None,
        colour="network",
        is_rate=False,
    ),
    Panel(
        name="joint-edits",
        title="Joint edits",
        view="setting_summary",
        where="mode = 'independent' AND (metric LIKE '%_success' OR metric = 'mean_residual')",
        x="batch_size",
        x_title="joint edits m",
        x_scale="log",
        columns=_JOINT,
        colour="series",
        is_rate=False,
    ),
)


def panel(name: str) -> Panel | None:
    """Return the panel of a name; None if there is none."""
    return next((each for each in PANELS if each.name == name), None)
