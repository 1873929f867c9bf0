"""The table in the paper's layout, as Markdown and as LaTeX: rows are methods, pairs of columns are resolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from .cells import GROUP
from .marks import footnotes, signs
from .table import number

TITLES = {
    "excitation_bp": "Excitation BP",
    "mask": "Mask",
    "grad_cam": "Grad-CAM",
    "rise": "RISE",
    "integrated_gradients": "Integrated Gradients",
    "igos": "I-GOS",
}
"""In the paper's order; other methods follow under their own names."""

KINDS = ("deletion", "insertion")


def title(label: str) -> str:
    """A label, a method and its variant, as it stands in print."""
    method, _, variant = label.partition(" ")
    return f"{TITLES.get(method, method)} {variant}".strip()


def markdown(table: pd.DataFrame) -> str:
    """The page `table.md`: for every model, data and protocol the areas, then the running times."""
    parts = []
    for (model, data, protocol), group in table.groupby(GROUP, sort=False):
        resolutions = _resolutions(group)
        parts.append(f"## {model}, {data}, protocol {protocol}\n\n{_caption(group)}\n")
        heads = [f"{r} {kind} {'↓' if kind == 'deletion' else '↑'}" for r in resolutions for kind in KINDS]
        parts.append(
            _markdown_table(
                group, heads, lambda row: ["<br>".join(_lines(row, kind, "\N{MINUS SIGN}")) for kind in KINDS]
            )
        )
        parts.append("Seconds an image, explaining + scoring (images done of images asked for):\n")
        parts.append(_markdown_table(group, [str(r) for r in resolutions], lambda row: [_times(row)]))
    return "\n".join(parts)


def latex(table: pd.DataFrame) -> str:
    r"""The file `table.tex`: a `table*` of areas and one of running times each; needs \usepackage{booktabs}."""
    parts = ["% \\usepackage{booktabs}"]
    for (model, data, protocol), group in table.groupby(GROUP, sort=False):
        resolutions = _resolutions(group)
        about = _escape(f"{model}, {data}, protocol {protocol}. ")
        pairs = " & ".join(f"\\multicolumn{{2}}{{c}}{{{r} $\\times$ {r}}}" for r in resolutions)
        rules = "".join(f"\\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(len(resolutions)))
        kinds = " & ".join(["Deletion $\\downarrow$", "Insertion $\\uparrow$"] * len(resolutions))
        lines = [f" & {pairs} \\\\", rules, f" & {kinds} \\\\", "\\midrule"]
        for title, cells in _rows(group, resolutions):
            found = [_lines(row, kind, "$-$") if row is not None else ["-"] for row in cells for kind in KINDS]
            for i in range(max(map(len, found))):
                shown = [lines_of[i] if i < len(lines_of) else "" for lines_of in found]
                shown = [text if i == 0 else f"{{\\scriptsize {text}}}" if text else "" for text in shown]
                lines.append(f"{_escape(title) if i == 0 else ''} & {' & '.join(shown)} \\\\")
        parts.append(_latex_table(lines, 2 * len(resolutions), about + _escape(_caption(group))))
        lines = [f" & {' & '.join(map(str, resolutions))} \\\\", "\\midrule"]
        for title, cells in _rows(group, resolutions):
            shown = ["-" if row is None else _times(row) for row in cells]
            lines.append(f"{_escape(title)} & {' & '.join(shown)} \\\\")
        times = "Seconds an image, explaining + scoring (images done of images asked for)."
        parts.append(_latex_table(lines, len(resolutions), about + times))
    return "\n".join(parts).replace("†", "$\\dagger$").replace("‡", "$\\ddagger$")


def _markdown_table(group: pd.DataFrame, heads: list[str], shown: Callable[[pd.Series], list[str]]) -> str:
    resolutions = _resolutions(group)
    width = len(heads) // len(resolutions)
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for title, cells in _rows(group, resolutions):
        texts = [text for row in cells for text in (["-"] * width if row is None else shown(row))]
        lines.append(f"| {title} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _latex_table(lines: list[str], columns: int, caption: str) -> str:
    return "\n".join(
        [
            "\\begin{table*}\n\\centering",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{l{'c' * columns}}}\n\\toprule",
            *lines,
            "\\bottomrule\n\\end{tabular}\n\\end{table*}\n",
        ]
    )


def _caption(group: pd.DataFrame) -> str:
    counts = sorted(set(group["n"]))
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    text = (
        f"Mean area with its 95 % bootstrap interval over {images} images; below them the paper's number (VGG19, 5,000 "
        f"ImageNet validation images) and the difference to it."
    )
    text = " ".join([text, *footnotes(group["marks"])])
    model, data = group["model"].iloc[0], group["data"].iloc[0]
    if (model, data) != ("vgg19", "imagenet"):
        text += f" The model is {model} and the images are {data}: these differences are no test of the paper."
    return text


def _resolutions(group: pd.DataFrame) -> list[int]:
    return sorted(set(group["resolution"]), reverse=True)


def _rows(group: pd.DataFrame, resolutions: list[int]) -> Iterator[tuple[str, list[pd.Series | None]]]:
    """Title and the cell at each resolution, None where there is none; the paper's methods first."""
    order = {name: place for place, name in enumerate(TITLES)}
    keys = sorted(
        set(zip(group["method"], group["variant"], strict=True)), key=lambda key: (order.get(key[0], len(order)), key)
    )
    for method, variant in keys:
        mine = group[(group["method"] == method) & (group["variant"] == variant)].set_index("resolution")
        yield title(f"{method} {variant}"), [mine.loc[r] if r in mine.index else None for r in resolutions]


def _lines(row: pd.Series, kind: str, minus: str) -> list[str]:
    """A cell's lines: mean, interval, and the paper's number with the difference to it."""
    lines = [number(row[f"{kind}_auc"]) + signs(row["marks"])]
    if not pd.isna(row[f"{kind}_ci_low"]):
        lines.append(f"[{number(row[f'{kind}_ci_low'])}, {number(row[f'{kind}_ci_high'])}]")
    paper = row[f"paper_{kind}"]
    if not pd.isna(paper):
        difference = row[f"{kind}_auc"] - paper
        sign = minus if difference < 0 else "+"
        lines.append(f"paper {number(paper)}, {sign}{number(abs(difference))}")
    return lines


def _times(row: pd.Series) -> str:
    seconds = " + ".join(number(row[key], 2) for key in ("explain_seconds", "score_seconds"))
    return f"{seconds} ({row['n']:,} of {row['requested']:,})"


def _escape(text: str) -> str:
    """For LaTeX."""
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)
