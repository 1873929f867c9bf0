"""Networks whose answers are known on paper: areas, order, expectation, completeness, descent.

The metric: where the evidence is additive over pixels it is so over the elements of a map of any resolution, as the
upsampling is linear. Element e then changes the score by d(e) when it is hit, and adds to the area d(e) times the part
of the curve behind its hit, `lags`. The arithmetic is that of METHODS.md and shares no code with the package.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import literal
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from toys import LinearPatches, SmallConv, toy_image

from igos_bench.evaluate import Evaluator
from igos_bench.methods import Igos, get_method, method_names
from igos_bench.metrics import Curves, Protocol, deletion_insertion
from igos_bench.overrides import CONF, compose_config
from igos_bench.perturb import Baseline

Array = NDArray[np.float64]

MEAN = (0.485, 0.456, 0.406)
MEAN_COLOUR = Baseline("mean")
PROTOCOLS = sorted(path.stem for path in Path(CONF, "protocol").glob("*.yaml"))  # a new one wants its `hits_of`
every_protocol = pytest.mark.parametrize("name", PROTOCOLS)


def protocol(name: str) -> Protocol:
    """As `igos-bench protocol=NAME` has it."""
    return Protocol.from_config(compose_config([f"protocol={name}"]).protocol)


def score(network: nn.Module, chosen: Protocol, image: Tensor, maps: Tensor) -> Curves:
    """Of maps (B,1,r,r) of one image (3,S,S), for class 0."""
    images = image.expand(len(maps), -1, -1, -1)
    evaluate = Evaluator(network, network, batch_size=64)
    return deletion_insertion(evaluate, chosen, images, torch.zeros(len(maps), dtype=torch.long), maps)


def mean_image(size: int) -> Tensor:
    return torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1).repeat(1, size, size)


# On paper


def hits_of(name: str, elements: int) -> list[int]:
    """How many elements are hit at each point of a protocol's curve."""
    if name == "igos_pp":
        return [*range(0, elements, max(1, elements // 50)), elements]
    n_steps = min(elements, {"paper": 200, "rise": 224}[name])
    return [math.floor(k * elements / n_steps + 0.5) for k in range(n_steps + 1)]


def lags(name: str, elements: int) -> Array:
    """Part of the area that lies behind the hit of the first, second, ... element, (elements,)."""
    hits = hits_of(name, elements)
    found: list[float] = []
    for before, now in itertools.pairwise(hits):
        hit_at = before if name == "igos_pp" else (before + now) / 2  # the trapezoid has half of a step's change in it
        found += [1 - hit_at / elements] * (now - before)
    return np.array(found)


def hats(r: int, size: int) -> Array:
    """Bilinear upsampling with `align_corners=True` along one side, (size,r)."""
    place = np.arange(size)[:, None] * (r - 1) / (size - 1)
    return np.maximum(0, 1 - np.abs(place - np.arange(r)))


def on_elements(name: str, pixels: Array, saliency_map: Array) -> tuple[Array, Array]:
    """What each ranked element changes when it is hit, and its value: of the map's own elements, or of pixels."""
    if name == "rise":
        # Not with `hats`: rounding decides the order within a plateau.
        return pixels.ravel(), literal.upsample(torch.from_numpy(saliency_map)[None], pixels.shape).numpy().ravel()
    up = hats(len(saliency_map), len(pixels))
    return (up.T @ pixels @ up).ravel(), saliency_map.ravel()


def in_order(changes: Array, values: Array) -> Array:
    """Changes, that of the largest value first; ties in row-major order."""
    return changes[sorted(range(len(values)), key=lambda place: -values[place])]


# The metric


@every_protocol
@pytest.mark.parametrize(("r", "size"), [(2, 32), (7, 56), (14, 56), (56, 56), (28, 224)])
def test_curves_and_areas_of_an_additive_network(name: str, r: int, size: int) -> None:
    """A chessboard around the mean colour: every blur makes a paler one of it.

    Along a side it is (-1)^i, which reflect-101 goes on with; taps g give it back times sum_t g_t (-1)^t. RISE's blur
    sees the mean colour beyond the border: no weight there.
    """
    draw = np.random.default_rng(size + r)
    sign = (-1.0) ** np.add.outer(np.arange(size), np.arange(size))
    evidence = draw.uniform(-0.5, 1, size=(size, size))  # of each pixel of the chessboard
    evidence[[*range(5), *range(-5, 0)]] = evidence[:, [*range(5), *range(-5, 0)]] = 0
    evidence *= 0.4 / np.abs(evidence).sum()
    weights = evidence / (0.3 * sign)
    network = LinearPatches(torch.from_numpy(weights), base=0.5 - weights.sum() * sum(MEAN) / 3)
    image = mean_image(size) + torch.from_numpy(0.3 * sign)
    saliency_map = draw.random((r, r))
    if name != "rise":
        saliency_map = np.round(saliency_map, 1)  # ties

    gauss = np.exp(-0.5 * (np.arange(-25, 26) / 50) ** 2)
    blurred = (gauss / gauss.sum() * (-1.0) ** np.arange(51)).sum() ** 2
    taps = [0.087958145777, 0.088896119777, 0.090474196549, 0.092191117819, 0.093489388443]
    taps = [*taps, 0.093982063268, *reversed(taps)]  # of 11, sigma 5, mirrored at both ends
    pale = {"mean": 0.0, "blur": blurred, "rise_blur": (np.array(taps) * (-1.0) ** np.arange(11)).sum() ** 2}
    deleted, inserted = (pale["mean"], pale["rise_blur"]) if name == "rise" else (pale["blur"], pale["blur"])

    found = score(network, protocol(name), image, torch.from_numpy(saliency_map)[None, None])
    for curve, area, left, first, way in (
        (found.deletion[0], found.deletion_auc[0], deleted, 1.0, -1),
        (found.insertion[0], found.insertion_auc[0], inserted, inserted, 1),
    ):
        changes = way * in_order(*on_elements(name, (1 - left) * evidence, saliency_map))
        start = 0.5 + first * evidence.sum()
        expected = start + np.concatenate([[0], np.cumsum(changes)])[hits_of(name, len(changes))]
        assert np.abs(curve.numpy() - expected).max() < 1e-11
        assert area == pytest.approx(start + changes @ lags(name, len(changes)), abs=1e-11)
        assert np.ptp(expected) > 1e-3, "a flat curve shows nothing"


@every_protocol
def test_a_perfect_map_beats_all_its_permutations(name: str) -> None:
    """Of 250 networks, 1,000 random patches, against all 23 other orders, each with its areas on paper."""
    draw = np.random.default_rng(PROTOCOLS.index(name))
    # Baselines are not the matter here, and four pixels have no neighbours for a blur.
    chosen = replace(protocol(name), deletion_baseline=MEAN_COLOUR, insertion_baseline=MEAN_COLOUR)
    drop = 1 - sum(MEAN) / 3  # of white
    orders = np.array(list(itertools.permutations(range(4))))
    behind = lags(name, 4)
    for _ in range(250):
        weights = draw.normal(size=(2, 2)) / 20
        evidence = drop * weights.ravel()
        network = LinearPatches(torch.from_numpy(weights), base=0.5 - weights.sum())
        maps = torch.from_numpy(weights.ravel()[orders]).view(24, 1, 2, 2)  # the first is the evidence itself
        found = score(network, chosen, torch.ones(3, 2, 2, dtype=torch.float64), maps)
        # The first element that a map hits is that of its largest value, wherever this came from.
        lost = evidence[maps.flatten(1).numpy().argsort(axis=1)[:, ::-1]] @ behind
        assert lost.argmax() == 0
        assert np.allclose(found.deletion_auc, 0.5 - lost, rtol=0, atol=1e-12)
        assert np.allclose(found.insertion_auc, 0.5 - evidence.sum() + lost, rtol=0, atol=1e-12)
        assert (found.deletion_auc[0] < found.deletion_auc[1:]).all()
        assert (found.insertion_auc[0] > found.insertion_auc[1:]).all()


@every_protocol
def test_a_random_map_has_the_area_that_chance_gives_it(name: str) -> None:
    """The mean over orders is that of the changes times that of the lags; their variance is Hoeffding's (1951)."""
    r, count = 11, 200
    size = 11 if name == "rise" else 32
    draw = np.random.default_rng(PROTOCOLS.index(name))
    pixels = draw.normal(size=(size, size)) / size**2 + 0.2 / size**2
    chosen = replace(protocol(name), deletion_baseline=MEAN_COLOUR, insertion_baseline=MEAN_COLOUR)
    drop = 1 - sum(MEAN) / 3
    network = LinearPatches(torch.from_numpy(pixels / drop), base=0.3)
    maps = draw.random((count, 1, r, r))
    found = score(network, chosen, torch.ones(3, size, size, dtype=torch.float64), torch.from_numpy(maps))

    changes, _ = on_elements(name, pixels, maps[0, 0])
    behind = lags(name, r * r)
    image = 0.3 + pixels.sum() / drop
    moved = changes.sum() * behind.mean()
    error = math.sqrt(((changes - changes.mean()) ** 2).sum() * ((behind - behind.mean()) ** 2).sum() / (r * r - 1))
    for areas, expected in (
        (found.deletion_auc, image - moved),
        (found.insertion_auc, image - pixels.sum() + moved),
    ):
        assert abs(areas.mean() - expected) < 3 * error / math.sqrt(count)
        assert areas.std() == pytest.approx(error, rel=0.2)


# The methods

SIZE = 56  # stands for 224; methods that have 28 and 14 are asked for these
SQUARE = (slice(16, 32), slice(28, 44))
PLACES = {56: 1, 28: 3, 14: 5}  # of the layers
QUICK: dict[str, dict[str, Any]] = {"mask": {"iterations": 60}, "rise": {"masks": 1000}}


def redness() -> tuple[nn.Sequential, Tensor, Array]:
    """A network that sees red, wherever; a red square on the mean colour; the share of it that each pixel has.

    Convolution, pooling and ReLUs that nothing falls below: every method has rules for them, and the logit is linear
    in the share of the square that is seen, from -2 to 2.
    """
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2),
        ).double().requires_grad_(False).eval()  # fmt: skip
    image = mean_image(SIZE)
    image[(0, *SQUARE)] = 1.0
    share = np.zeros((SIZE, SIZE))
    share[SQUARE] = 1 / 256
    gain = 4 / (1 - MEAN[0]) * SIZE**2 / 256
    network[0].weight[:] = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    network[8].weight[:] = torch.tensor([[gain], [0.0]], dtype=torch.float64)
    network[8].bias[:] = torch.tensor([-2 - gain * MEAN[0], 0.0], dtype=torch.float64)
    return network, image, share


def explain(name: str, resolution: int, image: Tensor, **parameters: Any) -> Tensor:
    """The map (1,1,r,r) of this method."""
    network = redness()[0]
    layers = {r: network[place] for r, place in PLACES.items()}
    return get_method(name, {**QUICK.get(name, {}), **parameters})(
        Evaluator(network, network, batch_size=64, layers=layers),
        image[None],
        torch.tensor([0]),
        baselines=mean_image(SIZE)[None],
        resolution=resolution,
        generators=[literal.image_generator(0, name, "square")],
        run_generator=torch.Generator().manual_seed(0),
    )


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def areas_of(name: str, shares: Array) -> tuple[float, float]:
    """Deletion and insertion of the red square, where these shares of it are hit, one after the other."""
    hits = np.array(hits_of(name, len(shares)))
    seen = np.concatenate([[0], np.cumsum(shares)])[hits]
    curves = sigmoid(4 * np.stack([1 - seen, seen]) - 2)
    heights = curves[:, 1:] if name == "igos_pp" else (curves[:, 1:] + curves[:, :-1]) / 2
    deletion, insertion = heights @ np.diff(hits) / hits[-1]
    return float(deletion), float(insertion)


def cases() -> list[Any]:
    found = []
    for name in method_names():
        there = get_method(name, {}).resolutions
        some = [r for r in (28, 14) if there == "from the model" or r in there] or [SIZE]
        found += [pytest.param(name, r, id=f"{name}-{r}") for r in some]
    return found


@pytest.mark.parametrize(("method", "resolution"), cases())
def test_every_method_finds_the_evidence_and_has_the_areas_of_its_map(method: str, resolution: int) -> None:
    network, image, share = redness()
    maps = explain(method, resolution, image)
    for name in PROTOCOLS:
        chosen = replace(protocol(name), deletion_baseline=MEAN_COLOUR, insertion_baseline=MEAN_COLOUR)
        found = score(network, chosen, image, maps)
        areas = found.deletion_auc[0], found.insertion_auc[0]
        shares, values = on_elements(name, share, maps[0, 0].numpy())
        assert areas == pytest.approx(areas_of(name, in_order(shares, values)), abs=1e-9)
        descending = np.sort(shares)[::-1]
        best, worst = areas_of(name, descending), areas_of(name, descending[::-1])
        assert best[0] - 1e-9 <= areas[0] < best[0] + 0.05 * (worst[0] - best[0])
        assert best[1] + 1e-9 >= areas[1] > best[1] - 0.05 * (best[1] - worst[1])


@pytest.mark.parametrize(
    ("method", "resolution"),
    [("integrated_gradients", SIZE), *((method, r) for method in ("grad_cam", "excitation_bp") for r in (28, 14))],
)
def test_maps_that_are_known(method: str, resolution: int) -> None:
    """What an element has of the change, along a straight path; of the red that is there, at a layer of one channel."""
    _, image, share = redness()
    known = torch.from_numpy(share)
    if resolution != SIZE:
        known = image[0].unflatten(0, (resolution, -1)).unflatten(2, (resolution, -1)).mean((1, 3))
    found = explain(method, resolution, image)[0, 0]
    assert (found / found.sum() - known / known.sum()).abs().max() < 1e-12


def test_the_completeness_gap_of_integrated_gradients_shrinks_as_one_over_steps() -> None:
    """By Euler and Maclaurin a right Riemann sum of n steps is (g(1) - g(0)) / 2n too large, and little else.

    g is the slope of the probability p along the path, p (1 - p) dz, where the logit goes from z = -2 to -0.4.
    """
    _, image, _ = redness()
    image[0] = 0.4 * image[0] + 0.6 * MEAN[0]
    steps, start, end = np.array([10, 20, 40, 80, 160]), sigmoid(-2.0), sigmoid(-0.4)
    sums = [float(explain("integrated_gradients", SIZE, image, steps=int(n)).sum()) for n in steps]
    gaps = np.array(sums) - (end - start)
    assert np.polyfit(np.log(steps), np.log(gaps), 1)[0] == pytest.approx(-1, abs=0.01)
    assert gaps[-1] * steps[-1] == pytest.approx(1.6 * (end * (1 - end) - start * (1 - start)) / 2, rel=1e-3)


# Descent


@pytest.mark.parametrize("sufficient_decrease", [1e-4, 0.5], ids=["as in conf", "much"])
def test_the_objective_of_igos_never_rises_where_a_step_was_good_enough(sufficient_decrease: float) -> None:
    """Every step of the optimisation, judged with the literal objective at the l1 of that step."""
    resolution, images_there, l2 = 8, 6, 1.0
    network = SmallConv(seed=0).double()
    images = torch.stack([toy_image(seed) for seed in range(images_there)]).double()
    baselines = torch.stack([literal.blur_baseline(image, 15, 8.0) for image in images])
    targets = network(images).argmax(1)
    evaluate = Evaluator(network, network)
    searches: list[dict[str, Tensor]] = []

    class Recording(Igos):
        def line_search(self, *arguments: Any) -> tuple[Tensor, Tensor]:
            masks, _, direction, l1, _ = arguments[4:]
            found, value = super().line_search(*arguments)
            kept = {"masks": masks, "direction": direction, "l1": l1, "found": found}
            searches.append({key: tensor.clone() for key, tensor in kept.items()})
            return found, value

    method = Recording(lambdas={resolution: (0.1, l2)}, path_steps=6, sufficient_decrease=sufficient_decrease)
    method(
        evaluate, images, targets, baselines=baselines, resolution=resolution,
        generators=[literal.image_generator(0, "igos", f"image{b}") for b in range(images_there)],
        run_generator=torch.Generator(),
    )  # fmt: skip

    fallbacks = 0
    for search, b in itertools.product(searches, range(images_there)):
        l1, direction = float(search["l1"][b]), search["direction"][b]

        def objective(mask: Tensor, b: int = b, l1: float = l1) -> float:
            scored = (network, images[b], baselines[b], int(targets[b]), mask, l1, l2)
            return float(literal.igos_objective(*scored))

        start, found = objective(search["masks"][b]), objective(search["found"][b])
        step = 200.0
        while step >= 1e-5:
            enough = start - sufficient_decrease * step * float(direction.square().sum())
            if objective((search["masks"][b] - step * direction).clamp(0, 1)) <= enough:
                assert found <= enough + 1e-12 <= start + 1e-12
                break
            step *= 0.2
        fallbacks += step < 1e-5
    assert 0 < fallbacks < len(searches) * images_there, "steps of both kinds are wanted"
    assert evaluate.notes["steps without sufficient decrease"] == fallbacks
