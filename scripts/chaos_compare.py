"""What `chaos.py` looks for in a results folder: files that are torn, and what an undisturbed run has otherwise."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from igos_bench.formats import read_csv

SAME = ("maps/*.npz", "curves/*.npz", "records/*.csv", "records.csv", "images.txt", "protocol.json")


def torn(results: Path) -> list[str]:
    """The files of chunks, in their places, that cannot be read to their end."""
    found = [str(path) for path in results.rglob("records/[0-9]*.csv") if read_csv(path) is None]
    for path in results.rglob("[0-9]*.npz"):
        try:
            with np.load(path) as arrays:
                dict(arrays)
        except Exception as error:  # numpy and zipfile raise nearly anything
            found.append(f"{path}: {error!r}")
    return found


def committed(results: Path) -> dict[Path, bytes]:
    """The rows of the chunks that are done, seconds and all; also while the run goes on, whose leases come and go."""
    return {path: path.read_bytes() for path in results.glob("runs/*/*/*/*/*/*/records/[0-9]*.csv")}


def differences(whole: Path, broken: Path) -> list[str]:
    """What of maps, curves, rows, lists of images and protocols is not the same, but for the seconds in rows."""
    expected, found = _content(whole), _content(broken)
    wrong = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    wrong += [f"{path} should not be there" for path in sorted(found.keys() - expected.keys())]
    wrong += [f"{path} differs" for path in sorted(expected.keys() & found.keys()) if expected[path] != found[path]]
    for path in sorted(broken.rglob("run.json")):
        written = json.loads(path.read_text(encoding="utf-8"))
        if not written["finished"] or written["done"] != written["requested"]:
            wrong.append(f"{path.relative_to(broken)} says that not all is done")
        asked = (path.parent / "images.txt").read_text(encoding="utf-8").splitlines()
        for records in sorted(path.parent.glob("*/records.csv")):
            rows = [row["image_id"] for row in read_csv(records) or []]
            if rows != asked:
                wrong.append(f"{records.relative_to(broken)} has not one row for each image, but {rows}")
    return wrong


def _content(results: Path) -> dict[str, bytes]:
    paths = sorted(path for kind in SAME for path in results.rglob(kind) if not path.name.startswith("."))
    return {
        str(path.relative_to(results)): _without_seconds(path) if path.suffix == ".csv" else path.read_bytes()
        for path in paths
    }


def _without_seconds(path: Path) -> bytes:
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    kept = [i for i, name in enumerate(rows[0]) if not name.endswith("_seconds")]
    return repr([[row[i] for i in kept] for row in rows]).encode()
