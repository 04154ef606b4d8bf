"""A benchmark's result as a page in Markdown and as one of HTML, which needs nothing beside itself: no script, plots as SVG.

Called as: report.py RESULT.json FOLDER writes the pages of a result again.
"""

from __future__ import annotations

import html
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import leather
from figures import Figure, as_rows, number

TITLES = {
    "separation": "People while build servers clone: hosts of their own",
    "separation-shared": "People while build servers clone: the same hosts",
    "scaling": "More application hosts",
    "static": "Static files through the balancer",
    "balancer": "What the balancer adds to a page",
    "fairness": "A small bot beside a large one",
    "beaker": "Beaker's cache",
    "costs": "What one operation costs",
    "many": "Many repositories",
    "bigrepo": "Pages of large repositories",
    "stall": "Answers that wait",
    "push": "A push of one commit",
    "clone": "First and repeated clones",
    "fetch": "A fetch that finds nothing new",
    "pages": "Pages a second",
    "git": "Pushes and clones",
    "lock": "What the repository's lock costs",
}
# What a goal that is missed comes from, as far as it was found.
REASONS = {
    "static": "client, balancer and Apache share the machine's cores, and the balancer copies each byte once more, with or without its rules",
    "clone": "what is left is moving 20 MB: git, Kallithea's process and Apache each read and write every byte, and git looks at 5,000 wants; with nothing to"
    " compute both would cost the same",
    "stall": "git alone writes a pack once; here the cache of packs keeps each, though none is asked for again, and Kallithea's process and Apache read and"
    " write it on the same core",
    "fairness": "each of a clone's requests waits until one process comes free, and shares its host's processor with the requests that run beside it",
}
HEAD = ("what", "median", "unit", "runs", "spread", "goal")
WIDTH, HEIGHT = 900, 420
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}table{border-collapse:collapse;width:100%}"
    "td,th{border-bottom:1px solid #ddd;padding:.2rem .6rem;text-align:left}td.n{text-align:right}svg{max-width:100%;height:auto}code{background:#f4f4f4}"
)


def verdicts(figures: Iterable[Figure]) -> list[str]:
    """Return a sentence for each goal: met or missed, and by how much."""
    return [f"{figure.name}: {number(figure.value)} {figure.unit}, {figure.verdict}." for figure in figures if figure.verdict]


def findings(name: str, result: Mapping[str, Any], figures: Sequence[Figure]) -> list[str]:
    """Return what went wrong, the verdicts, and where a goal is missed what that comes from."""
    missed = any("missed" in figure.verdict for figure in figures)
    return [*result["problems"], *verdicts(figures)] + ([f"What is missed: {REASONS[name]}."] if missed and name in REASONS else [])


def facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the figures depend on."""
    return [("command", result["command"]), ("date", result["date"]), *[(name, str(value)) for name, value in result["environment"].items() if value]]


def markdown(name: str, result: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """Return the page in Markdown."""
    lines = [
        f"# {TITLES[name]}",
        "",
        f"Made by `{result['command']}` on {result['date'][:10]}; how it measures: [tests/benchmark](../../tests/benchmark/README.md);",
    ]
    kind = "with plots" if any(chart["part"] == name for chart in result["charts"]) else "for browsers"
    lines += [f"{kind}: [{name}.html]({name}.html); the values: [{name}.json]({name}.json).", ""]
    sentences = findings(name, result, figures)
    lines += [*[f"- {sentence}" for sentence in sentences], ""] if sentences else []
    lines += [f"- {why}: {count} times" for why, count in result["failures"].items()] + ([""] if result["failures"] else [])
    lines += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *[f"| {' | '.join(row)} |" for row in as_rows(figures)], ""]
    lines += ["| environment | |", "|---|---|", *[f"| {key} | {value} |" for key, value in facts(result)]]
    return "\n".join(lines) + "\n"


def svg(chart: Mapping[str, Any]) -> str:
    """Return a plot: lines, or bars."""
    plot = leather.Chart(chart["title"])
    if "bars" in chart:
        plot.add_bars([(value, label) for label, value in chart["bars"]])
        plot.add_x_scale(0, max(value for _, value in chart["bars"]) * 1.05)
    else:
        drawn = {name: points for name, points in chart["lines"].items() if points}
        for name, points in drawn.items():
            plot.add_line([tuple(point) for point in points], name=name)
        highest = max((y for points in drawn.values() for _, y in points), default=1)
        plot.add_y_scale(0, highest * 1.05)
        plot.add_x_axis(name=chart["x"])
        plot.add_y_axis(name=chart["y"])
    drawing: str = plot.to_svg(width=WIDTH, height=HEIGHT)
    return drawing[drawing.index("<svg") :]


def page(name: str, result: Mapping[str, Any], figures: Sequence[Figure], charts: Sequence[Mapping[str, Any]]) -> str:
    """Return the page in HTML."""

    def cells(row: Sequence[str], numbers: Sequence[int] = ()) -> str:
        return "<tr>" + "".join(f"<td{' class=n' if index in numbers else ''}>{html.escape(cell)}</td>" for index, cell in enumerate(row)) + "</tr>"

    title = html.escape(TITLES[name])
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head><body>',
        f"<h1>{title}</h1>",
        f"<p>Made by <code>{html.escape(result['command'])}</code> on {html.escape(result['date'][:10])}.</p>",
        "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings(name, result, figures)) + "</ul>",
        *[f"<p>Failed {count} times: {html.escape(why)}</p>" for why, count in result["failures"].items()],
        *[f"<figure>{svg(chart)}</figure>" for chart in charts if chart.get("bars") or any(chart.get("lines", {}).values())],
        "<table><tr>" + "".join(f"<th>{head}</th>" for head in HEAD) + "</tr>",
        *[cells(row, (1, 3, 4)) for row in as_rows(figures)],
        "</table><h2>Environment</h2><table>",
        *[cells(fact) for fact in facts(result)],
        "</table></body></html>",
    ]
    return "\n".join(parts) + "\n"


def publish(result: Mapping[str, Any], folder: pathlib.Path) -> list[pathlib.Path]:
    """Write values and pages of each benchmark in a result; return the files."""
    figures = [Figure.from_json(given) for given in result["figures"]]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dict.fromkeys(figure.part for figure in figures):
        own = [figure for figure in figures if figure.part == name]
        charts = [chart for chart in result["charts"] if chart["part"] == name]
        values = {**result, "figures": [figure.as_json() for figure in own], "charts": charts}
        contents = {
            "json": json.dumps(values, indent=2, ensure_ascii=False) + "\n",
            "md": markdown(name, result, own),
            "html": page(name, result, own, charts),
        }
        for suffix, content in contents.items():
            path = folder / f"{name}.{suffix}"
            path.write_text(content)
            written.append(path)
    return written


if __name__ == "__main__":
    publish(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))
