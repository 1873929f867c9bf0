"""The numbers beside the points of a figure: each is read as that of its own point, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from igos_bench.draw import areas
from igos_bench.draw.numbers import grid, size_of, spots
from igos_bench.draw.style import style

RESULTS = Path(__file__).parent.parent / "results"
METHODS = ("igos", "mask", "rise", "grad_cam", "excitation_bp", "integrated_gradients")


def table_of(name: str) -> pd.DataFrame:
    """The sample's, and as another machine times it; the paper's, with narrow intervals; fourteen cells in a crowd."""
    if name in ("sample", "sample elsewhere"):
        table = pd.read_csv(RESULTS / "sample_table.csv").assign(variant="", marks="")
        if name != "sample":
            table["explain_seconds"] *= np.random.default_rng(2).lognormal(0, 0.15, len(table))
        return table
    random = np.random.default_rng(0)
    if name == "paper":
        table = pd.read_csv(RESULTS / "paper_table1.csv")
        margin = 0.004
    else:
        cells = [(METHODS[i % 4], (224, 112, 28, 14)[i // 4]) for i in range(14)]
        around = random.normal((0.1, 0.6), 0.004, (14, 2))
        table = pd.DataFrame(cells, columns=["method", "resolution"])
        table[["deletion_auc", "insertion_auc"]] = around
        margin = 0.01
    for kind in ("deletion", "insertion"):
        for end, sign in (("low", -1), ("high", 1)):
            table[f"{kind}_ci_{end}"] = table[f"{kind}_auc"] + sign * margin
    return table.assign(variant="", marks="incomplete", explain_seconds=random.lognormal(1, 1, len(table)))


def numbers_of(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation) and text.get_text() != "better"]


def bars_of(axes: Axes) -> list[np.ndarray]:
    """Of all points, in dots, (many, 2)."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        for lines in container[2]:
            ends = axes.transData.transform(lines.get_segments()[0])  # type: ignore[arg-type]
            found.append(np.linspace(*ends, 500))
    return found


def gap(box: Bbox, points: np.ndarray) -> np.ndarray:
    """From a box to each of the points (n, 2), (n,)."""
    return np.hypot(*np.maximum(0, np.maximum(box.min - points, points - box.max)).T)


@pytest.mark.parametrize("draw", [areas.scatter, areas.time])
@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize("name", ["sample", "sample elsewhere", "paper", "crowd"])
def test_every_number_is_its_points(name: str, width: float, draw: Callable[[pd.DataFrame, float], Figure]) -> None:
    table = table_of(name)
    with style():
        figure = draw(table, width)
        figure.set_dpi(300)  # as it is saved
        FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        numbers = numbers_of(axes)
        assert len(numbers) == len(table)
        points = axes.transData.transform([number.xy for number in numbers])
        boxes = [Text.get_window_extent(number) for number in numbers]
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)
        for i, (number, box) in enumerate(zip(numbers, boxes, strict=True)):
            gaps = gap(box, points)
            assert gaps.min() > 2 / 72 * 300, "it hides no marker"
            if number.arrow_patch is None:
                assert gaps.argmin() == i and gaps[i] < 0.8 * np.delete(gaps, i).min(initial=np.inf)
            else:
                line = np.linspace(points[i], (box.min + box.max) / 2, 60)
                own = np.hypot(*(line - points[i]).T)
                for other, where in enumerate(boxes):
                    away = np.hypot(*(line - points[other]).T)
                    assert (away >= own.clip(max=2.5 / 72 * 300)).all(), "its line leads over no other point"
                    assert other == i or gap(where, line).min() > 0, "nor over another number"
            assert axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
            assert axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
            for bar in bars_of(axes):
                assert gap(box, bar).min() > 0, "no bar crosses it"


def test_strokes_lie_below_points_and_bars() -> None:
    with style():
        axes = areas.scatter(table_of("sample"), 3.3).axes[0]
    drawn = [part for container in axes.containers for part in container.get_children()]
    assert max(number.get_zorder() for number in numbers_of(axes)) < min(part.get_zorder() for part in drawn)


BOX = np.array([(0.0, 0.0), (200.0, 200.0)])


def spots_of(*points: tuple[float, float], texts: list[np.ndarray] | None = None) -> list[tuple[np.ndarray, bool]]:
    """Where numbers of two digits stand, and which are joined."""
    at = np.array(points)
    found = spots(at, np.tile(size_of("28"), (len(at), 1)), [point[None] for point in at], texts or [], BOX)
    return [(at[i] + spot.offset, spot.joined) for i, spot in enumerate(found)]


def test_a_lone_point_has_its_number_to_the_upper_right() -> None:
    [(centre, joined)] = spots_of((100, 100))
    assert not joined and (centre > 100).all() and (centre < 110).all()


def test_numbers_stay_within_the_axes() -> None:
    for corner in ((3, 3), (3, 197), (197, 3), (197, 197)):
        [(centre, _)] = spots_of(corner)
        assert (centre - size_of("28") >= BOX[0]).all() and (centre + size_of("28") <= BOX[1]).all()


def test_a_point_within_a_ring_of_others_is_joined_to_its_number() -> None:
    ring = [(100 + 9 * np.cos(a), 100 + 9 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 9)[:-1]]
    [(_, joined), *_] = spots_of((100, 100), *ring)
    assert joined, "nearest to it is another point, wherever it stands"


def test_no_line_leads_over_another_point() -> None:
    for angle in np.linspace(0, 2 * np.pi, 13):
        other = (100 + 2 * np.cos(angle), 100 + 2 * np.sin(angle))
        (centre, _), (others, _) = spots_of((100, 100), other)
        for end, mine, its in ((centre, (100, 100), other), (others, other, (100, 100))):
            assert np.hypot(*(end - mine)) < np.hypot(*(end - its)), "they go apart"


def test_two_points_in_one_place_are_both_joined() -> None:
    (one, joined), (other, also) = spots_of((100, 100), (100, 100))
    assert joined and also
    assert (abs(one - other) >= 2 * size_of("28")).any()


def test_what_is_written_is_kept_free() -> None:
    text = grid(np.array([102.0, 100.0]), np.array([140.0, 110.0]))
    [(centre, joined)] = spots_of((100, 100), texts=[text])
    assert not joined and not ((centre > 100).all() and centre[1] < 110)
