"""From a panel and its rows to a Vega-Lite chart, and from a chart to a picture.  No browser and no network is needed."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from tasks.reports.labels import labelled
from tasks.reports.panels import Panel

Row = Mapping[str, Any]
K = TypeVar("K")
Chart = dict[str, Any]
"""A Vega-Lite specification, with its data."""
VEGA_LITE = "6.4"
_COLOURS = (
    *("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#64473a", "#cb912f"),
    *("#787774", "#d44c47", "#2f9e8f", "#5b4fc9", "#a3b18a", "#3d5a80"),
)
_WIDTH, _HEIGHT = 230, 170
_ROOM = 12
"""More columns of a heat map leave no room for numbers in its cells."""
_RATE = [0, 1]


def chart(panel: Panel, rows: Sequence[Row]) -> Chart | None:
    """Return the chart of a panel over rows of its view; None where they hold nothing that it shows."""
    is_heat = panel.mark == "heat"
    shown = _shown(panel, labelled(rows, spread=not is_heat, on_axes=("layers",) if is_heat else ()))
    if not shown or (panel.mark == "heat" and not _has_area(panel, shown)):
        return None
    layers = _heat(panel, shown) if panel.mark == "heat" else _curves(panel, shown)
    facet = _facet(panel, shown)
    found: Chart = {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE.split('.')[0]}.json",
        "title": {"text": panel.title, "anchor": "start", "fontSize": 13},
        "data": {"values": shown},
        "facet": facet,
        **({} if "row" in facet else {"columns": 5}),
        "spec": layers,
        "resolve": {"scale": {"y": "shared" if panel.is_rate else "independent"}, "axis": {"x": "independent"}},
        "config": _CONFIG,
    }
    return found


def in_common_colours(charts: Mapping[K, Chart]) -> dict[K, Chart]:
    """Return charts of one page in which what has one name has one colour, as far as there are colours."""
    scales = {title: _colour_scale(each) for title, each in charts.items()}
    names = list(dict.fromkeys(name for scale in scales.values() for name in scale.get("domain", [])))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    found = deepcopy(dict(charts))
    for each in found.values():
        scale = _colour_scale(each)
        own = [colours[name] for name in scale.get("domain", [])]
        if len(set(own)) == len(own):  # else lines of one picture would be alike
            scale["range"] = own
    return found


def _colour_scale(chart: Chart) -> dict[str, Any]:
    """Return by which scale a chart's lines are coloured; an empty one of a heat map."""
    found: dict[str, Any] = chart["spec"]["encoding"].get("color", {}).get("scale", {})
    return found


def _has_area(panel: Panel, shown: Sequence[Row]) -> bool:
    """Return whether some small multiple of a heat map has rows and columns."""
    parts = {row["part"] for row in shown}
    return any(
        all(len({row[axis] for row in shown if row["part"] == part}) > 1 for axis in (panel.x, panel.y))
        for part in parts
    )


def columns_of(panel: Panel) -> list[str]:
    """Return the columns that a chart's data has beside those of its axes."""
    found = [
        panel.x,
        panel.y,
        panel.low,
        panel.high,
        panel.columns_by,
        panel.dash_by,
        panel.colour,
        "label",
        "series",
        "group",
    ]
    return list(dict.fromkeys(name for name in found if name))


def _shown(panel: Panel, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what is drawn: rows with both axes, only the columns that are needed, small multiples by their titles."""
    wanted, shown = [*columns_of(panel), "n_runs", "n_facts", "run_id"], []
    several = panel.mark == "heat" and len({row["run_id"] for row in rows if "run_id" in row}) > 1
    for row in rows:
        part = row.get(panel.columns_by) if panel.columns_by else None
        if row[panel.x] is None or row[panel.y] is None or (panel.columns and part not in panel.columns):
            continue
        if panel.y_scale == "log" and not row[panel.y] > 0:
            continue
        kept = {name: _plain(row[name]) for name in wanted if name in row}
        kept["part"] = panel.columns.get(str(part), str(part)) if panel.columns_by else ""
        kept.setdefault("group", f"{row.get('model') or ''} {_begin(str(row['run_id']))}".strip() if several else "")
        shown.append(kept)
    return shown


def _begin(run_id: str) -> str:
    """Return the beginning of a run's id, by which commands find it."""
    kind, _, digest = run_id.rpartition("-")
    return f"{kind}-{digest[:4]}"


def _plain(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _facet(panel: Panel, shown: Sequence[Row]) -> dict[str, Any]:
    order = list(panel.columns.values()) or sorted({row["part"] for row in shown})
    column = {"field": "part", "type": "nominal", "title": None, "sort": order, "header": {"labelFontSize": 12}}
    if len({row["group"] for row in shown}) < 2:
        return column
    return {
        "column": column,
        "row": {"field": "group", "type": "nominal", "title": None, "header": {"labelAngle": 0, "labelAlign": "left"}},
    }


def _curves(panel: Panel, shown: Sequence[Row]) -> dict[str, Any]:
    colour = panel.colour or "label"
    names = sorted({str(row.get(colour)) for row in shown})
    x_type = "ordinal" if panel.mark == "steps" else "quantitative"
    x: dict[str, Any] = {"field": panel.x, "type": x_type, "title": panel.x_title}
    if panel.mark == "steps":
        names_its_places = bool(panel.x_order)  # each of which a reader has to see
        x |= {
            "sort": list(panel.x_order) or "ascending",
            "axis": _axis(-30, overlap=True) if names_its_places else _axis(0),
        }
    elif panel.x_scale == "log":
        x["scale"] = {"type": "log"}
    scale: dict[str, Any] = {"domain": _RATE} if panel.is_rate else {"zero": False}
    if panel.y_scale == "log":
        scale["type"] = "log"
    y = {"field": panel.y, "type": "quantitative", "title": panel.y_title, "scale": scale}
    encoding: dict[str, Any] = {
        "x": x,
        "color": {
            "field": colour,
            "type": "nominal",
            "title": None,
            "scale": {"domain": names, "range": list(_COLOURS)},
            "legend": {"symbolOpacity": 1},
        },
        "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.08},
    }
    if panel.dash_by:
        kinds = list(panel.dash)
        encoding["strokeDash"] = {
            "field": panel.dash_by, "type": "nominal", "title": None,
            "scale": {"domain": kinds, "range": [panel.dash[kind] for kind in kinds]},
        }  # fmt: skip
    if "run_id" in shown[0]:
        encoding["detail"] = {"field": "run_id"}
    return {"width": _WIDTH, "height": _HEIGHT, "encoding": encoding, "layer": _marks(panel, y, shown, colour)}


def _marks(panel: Panel, y: dict[str, Any], shown: Sequence[Row], colour: str) -> list[dict[str, Any]]:
    tooltip = [{"field": name} for name in shown[0] if name not in ("part", "group")]
    few = len({row[panel.x] for row in shown}) <= 30
    line: dict[str, Any] = {
        "mark": {"type": "line", "point": {"size": 18} if few else False, "strokeWidth": 1.6},
        "encoding": {"y": y, "tooltip": tooltip},
        "params": [{"name": "picked", "select": {"type": "point", "fields": [colour]}, "bind": "legend"}],
    }
    if not few:  # a line through one point would not be seen
        point = {"type": "point", "filled": True, "size": 30}
        line_of = [name for name in ("part", "group", colour, "run_id", panel.dash_by) if name and name in shown[0]]
        count: dict[str, Any] = {"joinaggregate": [{"op": "count", "as": "n_points"}], "groupby": line_of}
        alone = {"transform": [count, {"filter": "datum.n_points == 1"}], "mark": point}
        line = {"layer": [line, alone | {"encoding": line["encoding"]}]}
    if not (panel.low and panel.high) or not any(row.get(panel.low) is not None for row in shown):
        return [line]
    bounds: dict[str, Any] = {"y": y | {"field": panel.low}, "y2": {"field": panel.high}}
    if panel.mark == "steps":
        return [
            {"mark": {"type": "rule", "strokeWidth": 1.2}, "encoding": bounds | {"strokeDash": {"value": [1, 0]}}},
            line,
        ]
    band: dict[str, Any] = {"mark": {"type": "area", "strokeWidth": 0}, "encoding": bounds | {
        "opacity": {"condition": {"param": "picked", "value": 0.14}, "value": 0.02}
    }}  # fmt: skip
    if panel.dash_by:  # the band is of the solid line
        band["transform"] = [{"filter": {"field": panel.dash_by, "equal": next(iter(panel.dash))}}]
        band["encoding"] = band["encoding"] | {"strokeDash": {"value": [1, 0]}}
    return [band, line]


def _middle(panel: Panel, shown: Sequence[Row]) -> float:
    values = [float(row[panel.colour or panel.y]) for row in shown]
    return (min(values) + max(values)) / 2


def _heat(panel: Panel, shown: Sequence[Row]) -> dict[str, Any]:
    x = {"field": panel.x, "type": "ordinal", "title": panel.x_title, "axis": _axis(0)}
    cells: dict[str, Any] = {
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "color": {"field": panel.colour, "type": "quantitative", "title": None, "scale": {"scheme": "purples"}}
        },
    }
    numbers: dict[str, Any] = {
        "mark": {"type": "text", "fontSize": 9},
        "encoding": {
            "text": {"field": panel.colour, "type": "quantitative", "format": ".2f"},
            "color": {
                "condition": {"test": f"datum['{panel.colour}'] > {_middle(panel, shown)}", "value": "white"},
                "value": "#444",
            },
        },
    }
    have_room = len({row[panel.x] for row in shown}) <= _ROOM
    return {
        "width": _WIDTH,
        "height": {"step": 22},
        "encoding": {
            "x": x,
            "y": {"field": panel.y, "type": "nominal", "title": panel.y_title, "sort": list(panel.y_order) or None},
        },
        "layer": [cells, numbers] if have_room else [cells],
    }  # fmt: skip


def _axis(angle: int, *, overlap: bool = False) -> dict[str, Any]:
    """Return an axis of names, which leaves out labels that would lie on others, unless they may."""
    return {"labelAngle": angle, "labelOverlap": False if overlap else "greedy", "labelSeparation": 2}


_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', sans-serif",
    "view": {"stroke": None},
    "axis": {
        "gridOpacity": 0.3,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "domain": False,
    },
    "header": {"titleFontSize": 11},
    "legend": {"orient": "bottom", "columns": 6, "labelLimit": 260, "symbolType": "stroke", "symbolStrokeWidth": 3},
}


def picture(chart: Chart, kind: str) -> bytes:
    """Return a chart as ``svg``, ``pdf``, ``png``, or ``html``, a page that needs no network."""
    import vl_convert as convert

    text = json.dumps(chart if kind == "html" else chart | {"background": "white"})
    if kind == "svg":
        return str(convert.vegalite_to_svg(text, vl_version=VEGA_LITE)).encode()
    if kind == "html":
        return str(convert.vegalite_to_html(text, vl_version=VEGA_LITE, bundle=True)).encode()
    if kind == "pdf":
        return bytes(convert.vegalite_to_pdf(text, vl_version=VEGA_LITE))
    return bytes(convert.vegalite_to_png(text, vl_version=VEGA_LITE, scale=1.5))
