"""Eight photographs to tune on: none of them is in the sample, whose numbers are reported.

    python scripts/tuning_images.py FOLDER

They are copied from scikit-image, scikit-learn and matplotlib, which the extra `dev` installs.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

PHOTOGRAPHS = {
    "skimage/data": ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"],
    "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
    "matplotlib/mpl-data/sample_data": ["grace_hopper.jpg"],
}


def main() -> int:
    """Copy them."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for place, names in PHOTOGRAPHS.items():
        package, _, inside = place.partition("/")
        for name in names:
            with as_file(files(package) / inside / name) as path:
                shutil.copyfile(path, folder / path.name)
    print(f"{sum(map(len, PHOTOGRAPHS.values()))} photographs in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
