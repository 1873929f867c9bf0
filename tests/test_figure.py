"""`igos-bench figure`: what is drawn is what the table says."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from result_folders import leave_run

from igos_bench.cells import read_cells
from igos_bench.draw import areas
from igos_bench.draw.style import looks, style
from igos_bench.errors import UserError
from igos_bench.figure import draw
from igos_bench.figure_words import read_figure
from igos_bench.table import make_table

ROOT = Path(__file__).parent.parent
PAIRS = [(0.1, 0.6), (0.2, 0.9), (0.05, 0.5), (0.3, 0.8)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    leave_run(tmp_path, "igos", 28, PAIRS)
    leave_run(tmp_path, "grad_cam", 14, [(d + 0.1, i - 0.2) for d, i in PAIRS])
    return tmp_path


def drawn(figure: Figure, panel: int = 0) -> list[tuple[float, float, list[np.ndarray]]]:
    """Every point of a panel, with the segments of its bars."""
    bars = [container for container in figure.axes[panel].containers if isinstance(container, ErrorbarContainer)]
    return [
        (float(bar[0].get_xdata()[0]), float(bar[0].get_ydata()[0]), [lines.get_segments()[0] for lines in bar[2]])  # type: ignore[index]
        for bar in bars
    ]


def test_points_and_intervals_are_the_tables(results: Path) -> None:
    table = make_table(read_cells(results))
    with style():
        points = drawn(areas.scatter(table, 3.3))
    assert len(points) == len(table) == 2
    for (x, y, (across, up)), (_, row) in zip(points, table.iterrows(), strict=True):
        assert (x, y) == (row["deletion_auc"], row["insertion_auc"])
        assert across[:, 0] == pytest.approx([row["deletion_ci_low"], row["deletion_ci_high"]])
        assert up[:, 1] == pytest.approx([row["insertion_ci_low"], row["insertion_ci_high"]])
        assert across[0, 0] < across[1, 0] and up[0, 1] < up[1, 1]


def test_numbers_can_be_read(results: Path) -> None:
    with style():
        for figure in (
            areas.scatter(make_table(read_cells(results)), 3.3),
            areas.time(make_table(read_cells(results)), 7),
        ):
            texts = [text for axes in figure.axes for text in axes.texts if text.get_text() != "better"]
            assert texts and {text.get_text() for text in texts} == {"14", "28"}
            assert all(text.get_fontsize() >= 6 and max(to_rgb(text.get_color())) < 0.35 for text in texts)


def test_time_has_the_seconds_across(results: Path) -> None:
    table = make_table(read_cells(results))
    with style():
        figure = areas.time(table, 7)
    for panel, kind in enumerate(("deletion", "insertion")):
        assert [(x, y) for x, y, _ in drawn(figure, panel)] == list(
            zip(table["explain_seconds"], table[f"{kind}_auc"], strict=True)
        )
        assert figure.axes[panel].get_xscale() == "log"


@pytest.mark.parametrize(("most", "said"), [(1.0, ["3", "5"]), (3.0, ["3", "5", "7", "10"]), (1e4, ["10", "1000"])])
def test_seconds_are_written_as_people_write_them(results: Path, most: float, said: list[str]) -> None:
    table = make_table(read_cells(results))
    table["explain_seconds"] = [3.2, 3.2 * most]
    with style():
        figure = areas.time(table, 3.3)
        FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        seen = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
        assert not any(one.overlaps(other) for one, other in combinations(seen, 2))
        assert set(said) <= {label.get_text() for label in labels}
        assert not any("$" in label.get_text() for label in labels)
        assert np.ptp([box.y1 for box in seen]) < 0.01, "on one line"


def test_the_better_corner_is_low_deletion_and_high_insertion(results: Path) -> None:
    with style():
        axes = areas.scatter(make_table(read_cells(results)), 3.3).axes[0]
    (arrow,) = [text for text in axes.texts if text.get_text() == "better"]
    (x, y), (from_x, from_y) = arrow.xy, arrow.get_position()
    assert x < from_x < 0.5 < from_y < y, "it points up and to the left"
    assert axes.get_xlim()[0] < axes.get_xlim()[1] and axes.get_ylim()[0] < axes.get_ylim()[1]


def test_an_incomplete_cell_is_marked(results: Path) -> None:
    leave_run(results, "mask", 28, PAIRS[:3], requested=4)
    with style():
        for draw_areas in (areas.scatter, areas.time):
            figure = draw_areas(make_table(read_cells(results, allow_partial=True)), 3.3)
            texts = [text.get_text() for text in figure.axes[0].texts if text.get_text() != "better"]
            assert sorted(texts) == ["14", "28", "28 !"]
            assert "marked with ! lacks images" in " ".join(figure.legends[0].get_title().get_text().split())


def test_no_two_methods_look_the_same() -> None:
    labels = ["igos", "mask", *(f"mine{i}" for i in range(30))]
    found = looks(labels)
    assert len(set(found.values())) == len(labels)
    assert looks(["mask"])["mask"] == found["mask"], "whichever others are drawn"


def test_the_same_bytes_again_and_fonts_inside(results: Path) -> None:
    words = ["kind=scatter", f"results_dir={results}", "width=3.3"]
    paths = draw(words)
    once = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == ["scatter.png", "scatter.pdf"]
    assert [path.read_bytes() for path in draw(words)] == once
    assert b"CreationDate" not in once[1] and b"/FontFile2" in once[1] and b"/Type3" not in once[1]
    assert once[0][16:20] == (990).to_bytes(4, "big"), "3.3 inches at 300 dots"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say which figure, kind=scatter, time, curves, perturbed or resolutions"),
        (["kind=scater"], "unknown kind 'scater' .did you mean 'scatter'"),
        (["kind=scatter", "widht=3"], "unknown key 'widht' .did you mean 'width'"),
        (["kind=scatter", "width=1"], "width=1: give inches from 2 to 20"),
        (["kind=scatter", "width=nan"], "width=nan: give inches"),
        (["kind=scatter", "allow_partial=maybe"], "allow_partial=maybe: write true or false"),
        (["kind=scatter", "model=a,b"], "model=a,b: give one model; only methods="),
        (["kind=scatter,time"], "kind=scatter,time: give one kind"),
        (["kind=scatter", "width=range(2,4)"], r"width=range\(2,4\): write the values out"),
        (["kind=scatter", "methods=glob(*)"], r"methods=glob\(\*\): write the values out"),
    ],
)
def test_mistakes_are_named(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_figure(words)


def test_methods_with_commas() -> None:
    for words in (
        "methods=igos,grad_cam",
        "methods='igos',grad_cam",
        "methods=[igos,grad_cam]",
        "methods=choice(igos,grad_cam)",
    ):
        assert read_figure(["kind=scatter", words]).methods == ["igos", "grad_cam"]


def test_a_run_that_cannot_be_read_leaves_the_others(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, broken = sorted(results.glob("runs/*/*/*/*/*/run.json"), reverse=True)
    for content in ("{", "{}"):
        broken.write_text(content)
        assert draw(["kind=scatter", f"results_dir={results}"])
        said = capsys.readouterr().err
        assert said.startswith(f"igos-bench: left out: {broken} ") and said.count("\n") == 1
    whole.write_text("{")
    with pytest.raises(UserError, match=f"none of the runs can be read: {broken}"):
        draw(["kind=scatter", f"results_dir={results}"])


def test_what_cannot_be_drawn_is_said(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="unknown method 'igo' .did you mean 'igos'"):
        draw(["kind=scatter", "methods=[igo]", f"results_dir={results}"])
    with pytest.raises(UserError, match="no runs under"):
        draw(["kind=scatter", f"results_dir={tmp_path_factory.mktemp('none')}"])
    leave_run(results, "mask", 28, [None, None])
    with pytest.raises(UserError, match="1 of 3 cells are incomplete"):
        draw(["kind=scatter", f"results_dir={results}"])
    assert draw(["kind=scatter", "allow_partial=true", f"results_dir={results}"])
    with pytest.raises(UserError, match="none of the cells .* nothing to draw"):
        draw(["kind=scatter", "methods=mask", "allow_partial=true", f"results_dir={results}"])
    leave_run(results, "igos", 28, PAIRS, model="other")
    with pytest.raises(UserError, match="of several, other, toy, which do not compare: say model=other"):
        draw(["kind=scatter", "allow_partial=true", f"results_dir={results}"])


def test_without_matplotlib(results: Path) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Gone(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'matplotlib': sys.meta_path[:] = [self]\n"
        "        return None\n"
        "sys.meta_path.insert(0, Gone())\n"
        f"sys.argv = ['igos-bench', 'figure', 'kind=scatter', {f'results_dir={results}'!r}]\n"
        "from igos_bench.cli import main\n"
        "sys.exit(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("not installed: pip install igos-bench[report]")
    assert ended.stderr.count("\n") == 1
