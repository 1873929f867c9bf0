"""A chunk in which an image failed, started again: that image alone is tried, and others only where it is mended."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from noise import write_noise
from PIL import Image

from igos_bench import batch, chunk, packs
from igos_bench.data import ImageSource
from igos_bench.metrics import Curves
from igos_bench.overrides import compose_config
from igos_bench.prepare import Run, prepare
from igos_bench.runner import Outcome, execute

NAMES = [f"{i}.png" for i in range(5)]
CHUNKS = 2  # of three images, and of two


class Watched:
    """What is decoded and what is explained, by the names of the images, while it works as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded: list[str] = []
        self.explained: list[list[str]] = []
        decode: Callable[..., Iterator[Any]] = Run.decode
        explain = chunk.explain_and_score

        def watched_decode(run: Run, images: Iterable[ImageSource], **how: Any) -> Iterator[Any]:
            for source, image in decode(run, images, **how):
                self.decoded.append(source.image_id)
                yield source, image

        def watched_explain(run: Run, evaluate: Any, good: list[Any], *more: Any) -> Any:
            self.explained.append([source.image_id for source, _ in good])
            return explain(run, evaluate, good, *more)

        monkeypatch.setattr(Run, "decode", watched_decode)
        monkeypatch.setattr(chunk, "explain_and_score", watched_explain)


@pytest.fixture(params=["loose", "packed"])
def words(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if request.param == "packed":
        monkeypatch.setattr(packs, "RANGE", CHUNKS)
    write_noise(tmp_path / "images", NAMES)
    return [
        "model=timm", "model.architecture=mobilenetv3_small_050", "model.weights=null", "data=folder", "device=cpu",
        f"data.root={tmp_path / 'images'}", "method=integrated_gradients", "method.steps=2", "resolution=224",
        "protocol.n_steps=2", "chunk_size=3",
    ]  # fmt: skip


@pytest.fixture
def bad(tmp_path: Path, words: list[str]) -> Path:
    """The second image of the first chunk, which a manifest draws in an order of its own."""
    return tmp_path / "images" / prepare(compose_config(words)).images[1].image_id


def run(words: Sequence[str], results: Path, **how: Any) -> Outcome:
    return execute(prepare(compose_config([*words, f"results_dir={results}"])), lambda _count, _rows: None, **how)


def arrays(outcome: Outcome) -> dict[str, tuple[bytes, int]]:
    """Maps and curves of the run, loose or packed: what is in each file, and when it was written."""
    found = [path for kind in ("maps", "curves") for path in outcome.directory.rglob(f"{kind}/*")]
    return {str(path.relative_to(outcome.directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def rows(outcome: Outcome, *, seconds: bool = True) -> list[dict[str, str]]:
    found = csv.DictReader(io.StringIO(outcome.records.read_text(), newline=""))
    return [{key: value for key, value in row.items() if seconds or not key.endswith("_seconds")} for row in found]


def break_decoding(path: Path) -> None:
    path.write_bytes(b"no image".ljust(path.stat().st_size))


def break_explaining(path: Path) -> None:
    """One colour is its own blur: no pixel matters. As long as before, since a data set is known by that."""
    size = path.stat().st_size
    Image.new("RGB", (40, 40), "#808080").save(path)
    path.write_bytes(path.read_bytes().ljust(size))


@pytest.mark.parametrize(("damage", "reached"), [(break_decoding, []), (break_explaining, [1])])
def test_it_fails_again_alone(
    words: list[str],
    bad: Path,
    damage: Callable[[Path], None],
    reached: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(bad)
    first = run(words, tmp_path / "out")
    assert [row["status"] for row in rows(first)].count("failed") == 1
    before, text = arrays(first), first.records.read_bytes()
    seen = Watched(monkeypatch)
    again = run(words, tmp_path / "out")
    assert seen.decoded == [bad.name], "no other image is read"
    assert seen.explained == [[bad.name] * len(reached)], "nor explained"
    assert arrays(again) == before and again.records.read_bytes() == text
    assert again.resumed == 2, "a chunk with a failed image is told of when it has been tried"
    assert [row["image_id"] for row in again.rows] == [row["image_id"] for row in first.rows]
    scored = run(words, tmp_path / "out", explain=False)
    assert arrays(scored) == before
    assert [row["status"] for row in rows(scored)] == [row["status"] for row in rows(first)]
    assert seen.decoded == [bad.name] * 2


def test_its_new_reason_is_told(words: list[str], bad: Path, tmp_path: Path) -> None:
    break_decoding(bad)
    first = run(words, tmp_path / "out")
    before, stated = arrays(first), rows(first)
    break_explaining(bad)
    again = run(words, tmp_path / "out")
    assert arrays(again) == before
    ((old, new),) = [pair for pair in zip(stated, rows(again), strict=True) if pair[0] != pair[1]]
    assert old["image_id"] == new["image_id"] == bad.name
    assert old["status"] == new["status"] == "failed" and old["error"] != new["error"]


def test_rounding_alone_changes_no_row(
    words: list[str], bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map of an image of one colour is rounding, which may depend on the images beside it: so its ties do."""
    break_explaining(bad)
    first = run(words, tmp_path / "out")
    text = first.records.read_bytes()
    score = batch.deletion_insertion

    def rounded_otherwise(*given: Any) -> Curves:
        curves = score(*given)
        return replace(curves, ties=curves.ties / 2)

    monkeypatch.setattr(batch, "deletion_insertion", rounded_otherwise)
    assert run(words, tmp_path / "out").records.read_bytes() == text
    tried = [row["ties"] for row in run(words, tmp_path / "other").rows]
    assert [2 * float(ties) for ties in tried] == [float(row["ties"]) for row in rows(first)]


def test_it_is_mended_and_all_are_as_undisturbed(
    words: list[str], bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(words, tmp_path / "whole")
    content = bad.read_bytes()
    break_decoding(bad)
    run(words, tmp_path / "out")
    bad.write_bytes(content)
    seen = Watched(monkeypatch)
    mended = run(words, tmp_path / "out")
    assert [len(names) for names in seen.explained] == [1, 3]
    assert rows(mended, seconds=False) == rows(undisturbed, seconds=False)
    contents = [{name: content for name, (content, _) in arrays(one).items()} for one in (mended, undisturbed)]
    assert contents[0] == contents[1]


def test_an_image_alone_in_its_chunk_is_computed_once(
    words: list[str], bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bad.read_bytes()
    break_decoding(bad)
    run([*words, "chunk_size=1"], tmp_path / "out")
    bad.write_bytes(content)
    seen = Watched(monkeypatch)
    mended = run([*words, "chunk_size=1"], tmp_path / "out")
    assert seen.decoded == [bad.name] and seen.explained == [[bad.name]]
    assert {row["status"] for row in mended.rows} == {"ok"}
