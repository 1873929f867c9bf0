"""Whatever a name, a path or a choice says, a real run writes into its results folder alone, or says why it does not.

Each command is run in this process, on a real folder of one image, up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_bad_configuration import FEW, SCHEMA, ended, state

WORDS = {
    "data": "folder", "data.root": "images", "model": "timm", "model.architecture": "test_byobnet",
    "model.weights": "null", "device": "cpu", "protocol.n_steps": "1", "seed": "0",
}  # fmt: skip
COMMANDS = {
    "run": {"method": "grad_cam", "resolution": "7"},
    "plan": {"method": "grad_cam", "resolution": "7"},
    "score": {"maps": "maps", "name": "theirs"},
}
GROUPS = ("method", "model", "data", "protocol", "experiment")


def texts(content: dict[str, object], prefix: str = "") -> Iterator[str]:
    """The keys whose values are text, or may be: all but the folder of results, which may lie anywhere."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from texts(value, f"{prefix}{key}.")
        elif (value is None or type(value) is str) and key != "results_dir":
            yield f"{prefix}{key}"


KEYS = [*texts(SCHEMA), "method.name", *GROUPS]
NAMES = ["model.name", "data.name", "protocol.name", "name"]
TRICKS = [
    "../../x", "../x", "..", ".", "x/../../../x", "/", "//x", "{outside}", "{outside}/x", "{outside}/canary", "~",
    "~/x", "images", "images/one.png", "../outside", "a\0b", "../x\0", "a\nb", "\n", "a\r", "\x1b[2J", "\x7f",
    "\u202egpj",
    "\uff0e\uff0e/x", "\uff0e\uff0e\uff0fx", "\u2025/x", "\u2024\u2024/x", "..\u2215x", "..\u2044x", "..\\x", "C:\\x",
    "e\u0301", "\u00e9", "\ufeff", "\u200b", "\ud800", "\udc2e\udc2e/x", " ", " x", "x ", "-rf", "--help", ".x",
    "x.tmp", "con", "%2e%2e%2fx", "$HOME", "`touch x`", "$(touch x)", "; touch x", "x" * 255, "x" * 300, "\u6f22" * 100,
    "runs", "run.json", "null", "file:///etc/passwd", "http://localhost:1/x", "os",
]  # fmt: skip

keys = st.sampled_from(KEYS) | st.sampled_from(NAMES)
values = st.sampled_from(TRICKS) | st.builds(
    "".join,
    st.lists(st.sampled_from(["..", "/", ".", "x", "\0", "\n", "\uff0e", "\u2215", "\\", " ", "~"]), max_size=6),
)
HOW_MANY = [
    settings(FEW, max_examples=10),
    pytest.param(settings(FEW, max_examples=100), marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
]


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What lies around the working folder `work`, in which are an image, its map and canaries."""
    folder = tmp_path_factory.mktemp("around")
    (folder / "work" / "images").mkdir(parents=True)
    Image.radial_gradient("L").resize((32, 32)).save(folder / "work" / "images" / "one.png")
    (folder / "work" / "maps").mkdir()
    np.save(folder / "work" / "maps" / "one.png.npy", np.arange(49, dtype=np.float32).reshape(7, 7))
    for name in ("canary", "outside/canary", "work/canary"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("alive")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "work")
        yield folder


def outside(around: Path) -> dict[str, bytes | None]:
    """All but what is in the results folder."""
    here = state(around).items()
    return {name: content for name, content in here if not f"{name}/".startswith("work/results/")}


def check(around: Path, command: str, key: str, value: str, *, quoted: bool) -> int:
    """Run a command of which one word was changed; its exit code."""
    before = outside(around)
    value = value.replace("{outside}", str(around / "outside"))
    if quoted:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        value = f"'{escaped}'"
    said = WORDS | COMMANDS[command] | {key: value}
    code, errors = ended(command, *(f"{key}={value}" for key, value in said.items()))
    assert outside(around) == before, said
    assert code in (0, 2, 4), (said, code, errors)  # 4: a folder's name that the file system has no room for
    if code:
        (line,) = errors.splitlines()
        assert line.startswith("igos-bench: ") and line.isprintable() and len(line) < 2100, (said, errors)
    for path in Path("results").rglob("run.json"):
        assert len(path.parts) == 8, "model, data, method, resolution and key are one folder each"
    return code


@pytest.mark.parametrize("how_many", HOW_MANY, ids=["few", "many"])
def test_nothing_is_written_elsewhere(around: Path, how_many: settings) -> None:
    @how_many
    @example("run", "model.name", "../../x", True)
    @example("score", "name", "{outside}/x", True)
    @example("run", "data.name", "\u00e9", True)
    @given(st.sampled_from(list(COMMANDS)), keys, values, st.booleans())
    def stays(command: str, key: str, value: str, quoted: bool) -> None:
        check(around, command, key, value, quoted=quoted)

    stays()


@pytest.mark.parametrize(
    ("command", "key", "value", "code"),
    [
        ("run", "seed", "0", 0),
        ("score", "seed", "0", 0),
        ("run", "model.name", "Theirs_2.b-c", 0),
        ("score", "name", "ours", 0),
        ("run", "data.name", "\u00e9", 2),
        ("run", "protocol.name", "x" * 300, 4),
        ("run", "data.name", "../x", 2),
        ("score", "name", "..", 2),
    ],
)
def test_the_commands_do_run(around: Path, command: str, key: str, value: str, code: int) -> None:
    assert check(around, command, key, value, quoted=True) == code
