"""Figures: rows of a view in, a matplotlib Figure out; no files, no state."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tasks.specs.run import UNEDITED

Rows = Sequence[Mapping[str, Any]]
_COLOURS = (
    *("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#64473a", "#cb912f"),
    *("#787774", "#d44c47", "#2f9e8f", "#5b4fc9", "#a3b18a", "#000000"),
)
_STYLES = ("-", "--", ":", "-.")


def editing_figure(rows: Rows) -> Figure:
    """Efficacy, paraphrase and neighborhood of new edits against the number of edits (window 50)."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    wide = [row for row in rows if row["window_edits"] == 50]
    for axis, kind in zip(figure.subplots(1, 3, sharey=True), ("efficacy", "paraphrase", "neighborhood"), strict=True):
        _curves(axis, wide, "edits", kind)
        axis.set(title=f"{kind} of new edits", xlabel="edits", ylim=(-0.03, 1.03))
    _legend(figure, wide)
    return figure


def forgetting_figure(rows: Rows) -> Figure:
    """Share of edits, right when applied, that are wrong now; and that have ever been found wrong."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, kind, title in zip(
        figure.subplots(1, 3, sharey=True),
        ("forgotten", "forgotten_ever", "retention"),
        ("forgotten now", "ever found forgotten", "earlier edits still preferred"),
        strict=True,
    ):
        _curves(axis, rows, "edits", kind, marker="o")
        axis.set(title=title, xlabel="edits", ylim=(-0.03, 1.03))
    _legend(figure, rows)
    return figure


def protocol_figure(rows: Rows) -> Figure:
    """S of each run under every scoring protocol: lines that cross are rankings that flip."""
    names = ("nll_mean", "nll_sum", "token", "argmax", "contained", "exact", "easyedit")
    placed = [{**row, "place": names.index(row["scoring_protocol"])} for row in rows if row["editor"] != UNEDITED]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axis = figure.subplots()
    _curves(axis, placed, "place", "score", marker="o")
    axis.set(title="score by scoring protocol", ylim=(-0.03, 1.03))
    axis.set_xticks(range(len(names)), names)
    _legend(figure, placed)
    return figure


def benchmark_figure(rows: Rows) -> Figure:
    """Each benchmark's F1 (where it has labels; else its mean value) against the edits, from the unedited model's on."""
    panels = list(dict.fromkeys((row["benchmark"], row["questions_run_id"], row["n_shots"]) for row in rows))
    starts = [row for row in rows if row["editor"] == UNEDITED]
    runs = {row["run_id"]: row for row in rows if row["editor"] != UNEDITED}
    rows = [row for row in rows if row["editor"] != UNEDITED] + [
        {**start, **{key: run[key] for key in ("run_id", "editor", "batch_size")}}
        for run in runs.values()
        for start in starts
        if start["model"] == run["model"] and start["sample"] == run["sample"]
    ]
    wide = min(4, len(panels))
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(max(4, 3.2 * wide), 3.0 * high + 0.6), layout="constrained")
    axes = list(figure.subplots(high, wide, sharey=True, squeeze=False).flat)
    for axis, (name, questions, shots) in zip(axes, panels, strict=False):
        mine = [row for row in rows if row["questions_run_id"] == questions]
        kind = "f1" if any(row["f1"] is not None for row in mine) else "mean_value"
        _curves(axis, mine, "edits", kind, marker="o")
        title = f"{'F1' if kind == 'f1' else 'mean'} {name}, {shots} shots"
        axis.set(title=title, xlabel="edits", ylim=(-0.03, 1.03))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    _legend(figure, rows)
    return figure


def generation_figure(rows: Rows) -> Figure:
    """N-gram entropy and repetition of free texts against the number of edits."""
    return _two(rows, {"entropy": "n-gram entropy (bits)", "repetition": "repeated 4-grams"})


def perplexity_figure(rows: Rows) -> Figure:
    """Perplexity of held-out texts against the number of edits, and texts whose likelihood was lost."""
    return _two(rows, {"perplexity": "perplexity of held-out texts", "n_lost": "texts without a likelihood"})


def _two(rows: Rows, kinds: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (kind, title) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        _curves(axis, rows, "edits", kind, marker="o")
        axis.set(title=title, xlabel="edits")
    _legend(figure, rows)
    return figure


def drift_figure(rows: Rows) -> Figure:
    """‖W - W0‖ / ‖W0‖ of the parameter that has moved most, and the norm of each round's update."""
    largest: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in rows:
        key = (row["run_id"], row["edits"])
        if row["drift"] is not None and row["drift"] >= largest.get(key, {"drift": -1.0})["drift"]:
            largest[key] = dict(row)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, kind, title in zip(
        figure.subplots(1, 2), ("drift", "update_norm"), ("drift ‖W−W₀‖/‖W₀‖", "norm of each update"), strict=True
    ):
        _curves(axis, list(largest.values()), "edits", kind)
        axis.set(title=title, xlabel="edits")
    _legend(figure, rows)
    return figure


def layer_figure(rows: Rows) -> Figure:
    """Scores of independent edits of each layer."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for kind, colour in zip(("score", "efficacy", "paraphrase", "neighborhood"), _COLOURS, strict=False):
        ordered = sorted(rows, key=lambda row: row["layer"])
        axis.plot(
            [row["layer"] for row in ordered],
            [row[kind] for row in ordered],
            color=colour,
            marker="o",
            linewidth=2.5 if kind == "score" else 1.2,
            label=kind,
        )
    n_edits = max(row["n_edits"] for row in rows)
    axis.set(title=f"layer search, {n_edits} edits each", xlabel="layer", ylim=(-0.03, 1.03))
    axis.set_xticks(sorted({row["layer"] for row in rows}))
    axis.legend(frameon=False, fontsize=8)
    return figure


def trace_figure(rows: Rows) -> Figure:
    """Heat maps of the average indirect effect: token role by layer, one per kind of state."""
    kinds = [kind for kind in ("hidden", "mlp", "attention") if any(row["kind"] == kind for row in rows)]
    order = ("before subject", "earlier subject token", "last subject token", "after subject", "last token")
    roles = [role for role in order if any(row["role"] == role for row in rows)]
    n_layers = max(row["layer"] for row in rows) + 1
    top = max(row["effect"] for row in rows)
    figure = Figure(figsize=(4.2 * len(kinds), 2.8), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        grid = [[0.0] * n_layers for _ in roles]
        for row in rows:
            if row["kind"] == kind:
                grid[roles.index(row["role"])][row["layer"]] = row["effect"]
        image = axis.imshow(grid, aspect="auto", cmap="Purples", vmin=0, vmax=max(top, 1e-6))
        axis.set(title=f"restoring {kind}", xlabel="layer", xticks=range(n_layers))
        axis.set_yticks(range(len(roles)), roles if kind == kinds[0] else [""] * len(roles))
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def moment_figure(rows: Rows) -> Figure:
    """How far updates moved at each doubling of the tokens behind a second moment, a line per layer; a ring where it ended."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    layers = sorted({row["layer"] for row in rows})
    for recipe in sorted({row["recipe"] for row in rows}):
        mine = sorted((row for row in rows if row["recipe"] == recipe), key=lambda row: row["n_tokens"])
        colour = _COLOURS[layers.index(mine[0]["layer"]) % len(_COLOURS)]
        axis.plot([row["n_tokens"] for row in mine], [row["change"] for row in mine], color=colour, marker=".")
        ends = [row for row in mine if row["is_last"]]
        axis.plot(
            [row["n_tokens"] for row in ends],
            [row["change"] for row in ends],
            color=colour,
            marker="o",
            fillstyle="none",
            linestyle="",
            label=f"layer {mine[0]['layer']}",
        )
    axis.set(title="change of updates since half the tokens", xlabel="tokens read", xscale="log")
    if any(row["change"] > 0 for row in rows):
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    return figure


def batch_size_figure(rows: Rows) -> Figure:
    """Scores at the end of the run against batch size, one line per editor."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    editors = sorted({row["editor"] for row in rows})
    sizes = sorted({row["batch_size"] for row in rows})
    for axis, kind in zip(figure.subplots(1, 4), ("efficacy", "paraphrase", "neighborhood", "forgotten"), strict=True):
        for colour, editor in zip(_COLOURS, editors, strict=False):
            mine = sorted((row for row in rows if row["editor"] == editor), key=lambda row: row["batch_size"])
            places = [sizes.index(row["batch_size"]) for row in mine]
            axis.plot(places, [row[kind] for row in mine], color=colour, marker="o", label=editor)
        title = "forgotten, of the same early edits" if kind == "forgotten" else kind
        axis.set(title=title, xlabel="batch size", ylim=(-0.03, 1.03))
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def training_figure(rows: Rows) -> Figure:
    """Losses of hyper-network training, and what the network does to validation facts at the end of each segment."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    trained = [{**row, "batch_size": row["n_edits"]} for row in rows if row["split"] == "train"]
    sizes = {row["run_id"]: row["n_edits"] for row in trained}
    seen = [{**row, "batch_size": sizes.get(row["run_id"])} for row in rows if row["split"] == "validation"]
    axes = figure.subplots(1, 4)
    for axis, kind, label in zip(
        axes, ("generalisation_loss", "locality_loss"), ("generalisation", "locality"), strict=False
    ):
        _curves(axis, trained, "step", kind)
        axis.set(title=f"{label} loss", xlabel="step")
        if any((row[kind] or 0.0) > 0 for row in trained):
            axis.set_yscale("log")
    for axis, kind, label in zip(axes[2:], ("edit_success", "locality_success"), ("ES", "LS"), strict=True):
        _curves(axis, seen, "step", kind, marker="o")
        axis.set(title=f"{label} of validation facts", xlabel="step", ylim=(-0.03, 1.03))
    _legend(figure, trained)
    return figure


def joint_figure(rows: Rows) -> Figure:
    """ES, GS, LS and mean residual over the number of joint edits, a line per editor; means where runs agree in both."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    kinds = ("edit_success", "generalisation_success", "locality_success", "mean_residual")
    editors = sorted({row["editor"] for row in rows})
    for axis, kind, title in zip(figure.subplots(1, 4), kinds, ("ES", "GS", "LS", "mean residual"), strict=True):
        for colour, editor in zip(_COLOURS, editors, strict=False):
            found: dict[int, list[float]] = {}
            for row in rows:
                if row["editor"] == editor and row[kind] is not None:
                    found.setdefault(row["batch_size"], []).append(row[kind])
            sizes = sorted(found)
            axis.plot(sizes, [sum(found[m]) / len(found[m]) for m in sizes], color=colour, marker="o", label=editor)
        axis.set(title=title, xlabel="joint edits m", xscale="log")
        axis.grid(alpha=0.25)
        if kind != "mean_residual":
            axis.set_ylim(-0.03, 1.03)
        elif any((row[kind] or 0.0) > 0 for row in rows):
            axis.set_yscale("log")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(8, len(labels))), frameon=False)
    return figure


FIGURES: dict[str, tuple[str, Callable[[Rows], Figure]]] = {
    "editing": ("editing_curve", editing_figure),
    "scoring protocols": ("protocol_scores", protocol_figure),
    "forgetting": ("forgetting_curve", forgetting_figure),
    "downstream": ("benchmark_curve", benchmark_figure),
    "free texts": ("generation_curve", generation_figure),
    "perplexity": ("perplexity_curve", perplexity_figure),
    "drift": ("drift_curve", drift_figure),
    "batch size": ("batch_size_summary", batch_size_figure),
    "layers": ("layer_summary", layer_figure),
    "tracing": ("trace_summary", trace_figure),
    "second moments": ("moment_curve", moment_figure),
    "hyper-network training": ("training_curve", training_figure),
    "joint edits": ("joint_edits", joint_figure),
}
"""Title of each figure, the view it shows, and how it is drawn."""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['editor']} b{row['batch_size']}"


def _looks(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return colour by editor and line style by batch size; the same for the same rows, in any order."""
    editors = sorted({row["editor"] for row in rows})
    sizes = {editor: sorted({row["batch_size"] for row in rows if row["editor"] == editor}) for editor in editors}
    return {
        f"{editor} b{size}": {
            "color": _COLOURS[editors.index(editor) % len(_COLOURS)],
            "linestyle": _STYLES[sizes[editor].index(size) % len(_STYLES)],
        }
        for editor in editors
        for size in sizes[editor]
    }


def _curves(axis: Any, rows: Rows, x: str, y: str, *, marker: str = "") -> None:
    looks = _looks(rows)
    for run_id in dict.fromkeys(row["run_id"] for row in rows):
        mine = sorted((row for row in rows if row["run_id"] == run_id and row[y] is not None), key=lambda row: row[x])
        if mine:
            look = looks[_name(mine[0])]
            axis.plot([row[x] for row in mine], [row[y] for row in mine], marker=marker, markersize=3, **look)
    axis.grid(alpha=0.25)


def _legend(figure: Figure, rows: Rows) -> None:
    from matplotlib.lines import Line2D

    looks = _looks(rows)
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), frameon=False)
