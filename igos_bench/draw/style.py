"""What all figures share: fonts, sizes, colours and markers, and their bytes. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..layout import TITLES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by the colour-blind too; their yellow is left out, which is faint on white paper."""
DELETION, INSERTION = "#b2182b", "#1f5fa8"
"""A red and a blue of different lightness for red-green blind eyes too, those of the report."""
MARKERS = "osD^vPX"  # as many as colours: no method is told by its colour alone

_SETTINGS: Any = {  # the stubs take a dictionary of their own literals alone
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


@contextmanager
def style() -> Iterator[None]:
    """Within it figures are drawn and saved as a paper has them."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method by its label: the paper's methods keep theirs, whichever are drawn."""
    others = [label for label in dict.fromkeys(labels) if label not in TITLES]
    places = {label: place for place, label in enumerate([*TITLES, *others])}
    count = len(COLOURS)  # beyond them all, a colour comes again with another marker
    return {
        label: (COLOURS[places[label] % count], MARKERS[(places[label] + places[label] // count) % count])
        for label in labels
    }


def saved(figure: Figure, kind: str, dpi: int = 300) -> bytes:
    """The figure as `png` or `pdf`, pictures in it at `dpi` dots an inch.

    Without dates or versions: the same figure gives the same bytes.
    """
    dates = {"Software": None} if kind == "png" else {"CreationDate": None, "Creator": None, "Producer": None}
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=dates)
    return buffer.getvalue()
