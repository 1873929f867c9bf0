"""What `bench.py` compares: each method beside its peers, with how far apart their results may be.

In fp32 the tolerances are those of the tests, which run the same comparisons on other networks, with room for other
machines. In bf16 both sides round, each in its own order: most tolerances are about twice the largest difference that
was seen (two machines, 2026-11-25 and 26), all are below what zeros would have. Where the run has fp32 too, ours in
bf16 may moreover be hardly further from ours in fp32 than the peer's is (`bench_compare.check_rounding`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import peers
import torch
from bench_setup import GRAD_CAM_RESOLUTION, RESOLUTION, ClockedEvaluator, Setting, evaluator
from peers import AsReleased, Subject
from torch import Tensor

from igos_bench.batch import generator
from igos_bench.config import INPUT_SIZE, Precision
from igos_bench.evaluate import Evaluator
from igos_bench.methods import ExcitationBp, GradCam, Igos, IntegratedGradients, Mask, Method, Rise
from igos_bench.methods.rise import RandomMasks
from igos_bench.metrics import Protocol, deletion_insertion
from igos_bench.openvino_forward import OpenVINOForward
from igos_bench.perturb import Baselines
from igos_bench.prepare import Run

METRIC = "deletion_insertion"


@dataclass(frozen=True)
class Peer:
    """Somebody else's way to the same result.

    Attributes:
        name: For people.
        call: Runs it for all images.
        network: What it runs on; counts its passes.
        surplus: Forward passes an image that it runs beyond those that the result needs; efficiency leaves them out.
    """

    name: str
    call: Callable[[], Tensor]
    network: AsReleased
    surplus: int = 0


@dataclass(frozen=True)
class Case:
    """One result for some images, ours and the peers'.

    Attributes:
        method: Its name, or that of the metric.
        setting: What was run of it.
        images: How many.
        evaluate: Counts and clocks our passes.
        ours: The whole call, for all images.
        peers: The others.
        distances: How far apart two results are, (B,), an image each.
        tolerance: The largest difference that is none.
        goes_to_the_input: Its passes are those that the ceiling measures: Grad-CAM and Excitation BP stop at a layer.
        by_half: The better half of the images is compared. Near its condition a line search takes another step for a
            rounding, and all of the image's map is then another: one of four of VGG19's, with oneDNN's convolutions
            and Winograd's alike, was five times the literal one. In fp32 more than half must agree all the same.
    """

    method: str
    setting: str
    images: int
    evaluate: ClockedEvaluator
    ours: Callable[[], Tensor]
    peers: list[Peer]
    distances: Callable[[Tensor, Tensor], Tensor]
    tolerance: float
    goes_to_the_input: bool = True
    by_half: bool = False

    def difference(self, ours: Tensor, theirs: Tensor) -> float:
        """How far apart two results are: the worst image, or the better half's worst one."""
        distances = self.distances(ours, theirs)
        return float(distances.median() if self.by_half else distances.max())

    def agreeing(self, ours: Tensor, theirs: Tensor) -> int:
        """How many images are within the tolerance."""
        return int((self.distances(ours, theirs) <= self.tolerance).sum())


def relative(ours: Tensor, theirs: Tensor) -> Tensor:
    """||ours - theirs|| / ||theirs|| of each image, (B,)."""
    norms = [(tensor.flatten(1).norm(dim=1)) for tensor in (ours - theirs, theirs)]
    found: Tensor = norms[0] / norms[1].clamp(min=1e-30)
    return found


def mean_absolute(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean over elements of |ours - theirs|, of each image, (B,)."""
    return (ours - theirs).abs().flatten(1).mean(1)


def largest(ours: Tensor, theirs: Tensor) -> Tensor:
    """The largest |ours - theirs| of each image, (B,)."""
    return (ours - theirs).abs().flatten(1).amax(1)


@dataclass(frozen=True)
class Block:
    """One network and precision: what its cases share, our micro-batch among it."""

    run: Run
    setting: Setting
    micro_batch: int
    forward: OpenVINOForward | None  # of passes without a gradient, where that is the faster way here
    images: Tensor
    targets: Tensor
    image_ids: list[str]
    released: AsReleased

    @classmethod
    def of(cls, run: Run, setting: Setting, micro_batch: int, forward: OpenVINOForward | None = None) -> Block:
        """Decode the images and ask the network, in fp32, for the targets: they are the same in every precision."""
        decoded = [image for _, image in run.decode(run.images, ahead=4) if isinstance(image, Baselines)]
        images = Baselines.joined(decoded, run.device).images
        network = run.classifier.network
        targets = Evaluator(network, network, micro_batch).logits(images).argmax(1)
        released = AsReleased(network, run.config.precision)
        image_ids = [source.image_id for source in run.images]
        return cls(run, setting, micro_batch, forward, images, targets, image_ids, released)

    def evaluator(self, method: str) -> ClockedEvaluator:
        """Our way to the network, for a method or the metric."""
        searches = method == "igos" and self.run.config.precision is Precision.fp32  # in bf16 in float32, by torch
        has_forwards = searches or method in ("rise", METRIC)
        return evaluator(self.run, method, self.micro_batch, self.forward if has_forwards else None)

    def subject(self, count: int, method: Method, network: AsReleased | None = None) -> Subject:
        """The first images, for a method."""
        images = self.images[:count]
        return Subject(
            network or self.released, images, method.baseline(images), self.targets[:count], self.image_ids[:count]
        )

    def tolerance(self, fp32: float, bf16: float) -> float:
        """That of the precision; in bf16 both sides round, and differently."""
        return bf16 if self.run.config.precision is Precision.bf16 else fp32

    def layer(self, method: str, resolution: int) -> str:
        """The name of a layer in the peers' network."""
        return f"body.{self.run.classifier.layer_names_for(method)[resolution]}"


def igos(block: Block) -> Case:
    """I-GOS beside the literal loop; in bf16 beside one that searches in float32 as ours, and one in bf16 alone."""
    iterations, path_steps = block.setting.igos_iterations, block.setting.path_steps
    method = Igos(iterations=iterations, path_steps=path_steps)
    subject, evaluate = block.subject(block.setting.together, method), block.evaluator("igos")
    l1, l2 = method.lambdas[RESOLUTION]

    def literal(name: str, network: AsReleased) -> Peer:
        theirs = replace(subject, network=network)
        call = partial(peers.literal_igos, theirs, RESOLUTION, l1, l2, iterations, path_steps)
        return Peer(name, call, network)

    if block.run.config.precision is Precision.bf16:
        searching = AsReleased(block.run.classifier.network, Precision.bf16, searches_in_float32=True)
        there = [literal("literal", searching), literal("literal, bf16 alone", block.released)]
    else:
        there = [literal("literal", block.released)]
    return Case(
        method=method.name,
        setting=f"{iterations} of 15 iterations, {path_steps} path points, at {RESOLUTION}",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, RESOLUTION),
        peers=there,
        distances=mean_absolute,
        tolerance=block.tolerance(1e-3, 0.05),
        by_half=True,
    )


def mask(block: Block) -> Case:
    """Mask beside the literal loop."""
    iterations = block.setting.mask_iterations
    method = Mask(iterations=iterations)
    subject, evaluate = block.subject(block.setting.together, method), block.evaluator("mask")
    l1, l2 = method.lambdas[RESOLUTION]
    call = partial(peers.literal_mask, subject, RESOLUTION, l1, l2, iterations)
    return Case(
        method=method.name,
        setting=f"{iterations} of 500 iterations, at {RESOLUTION}",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, RESOLUTION),
        peers=[Peer("literal", call, block.released)],
        distances=mean_absolute,
        # Adam amplifies rounding: ten iterations in fp32 to 0.022 of one image; zeros differ by 0.25.
        tolerance=block.tolerance(0.045, 0.12),
    )


def rise(block: Block) -> Case:
    """RISE beside torchray and beside batches of a hundred masks."""
    method = Rise(masks=block.setting.masks)
    subject, evaluate = block.subject(1, method), block.evaluator("rise")
    drawn = RandomMasks.draw(method.masks, method.grid, method.probability, subject.images, generator(0, "rise"))
    masks, p = drawn[0 : method.masks], method.probability
    in_bf16 = 0.07 if method.masks >= 100 else 0.2  # the fewer are summed, the more each one's rounding shows
    return Case(
        method=method.name,
        setting=f"{method.masks} of 4000 masks, which the peers are given",
        images=1,
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, INPUT_SIZE),
        peers=[
            Peer("torchray", partial(peers.torchray_rise_maps, subject, masks, p), block.released, surplus=1),
            Peer("batches of 100", partial(peers.rise_in_batches, subject, masks, p), block.released),
        ],
        distances=relative,
        tolerance=block.tolerance(1e-4, in_bf16),
    )


def integrated_gradients(block: Block) -> Case:
    """Integrated Gradients beside captum."""
    method = IntegratedGradients(steps=block.setting.path_steps)
    subject, evaluate = block.subject(block.setting.together, method), block.evaluator(method.name)
    call = partial(peers.captum_integrated_gradients, subject, method.steps)
    return Case(
        method=method.name,
        setting=f"{method.steps} steps",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, INPUT_SIZE),
        peers=[Peer("captum", call, block.released)],
        distances=relative,
        # Four images of VGG19 at six steps: 0.76, with ours 0.80 and captum's 1.02 from fp32. Zeros would have 1.
        tolerance=block.tolerance(0.05, 0.95),
    )


def grad_cam(block: Block) -> Case:
    """Grad-CAM beside pytorch-grad-cam."""
    method = GradCam()
    subject, evaluate = block.subject(block.setting.batch, method), block.evaluator(method.name)
    call = partial(peers.pytorch_grad_cam, subject, block.layer(method.name, GRAD_CAM_RESOLUTION))
    # Rounding takes a unit of VGG19's linear layers over its kink now and then: 0.002 in one image of four, else 1e-5.
    a_unit = 5e-3 if block.run.classifier.name == "vgg19" else 1e-3
    return Case(
        method=method.name,
        setting=f"a batch of images, at {GRAD_CAM_RESOLUTION}",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, GRAD_CAM_RESOLUTION),
        peers=[Peer("pytorch-grad-cam", call, block.released)],
        distances=relative,
        tolerance=block.tolerance(a_unit, 0.75),
        goes_to_the_input=False,
    )


def excitation_bp(block: Block) -> Case:
    """Excitation BP beside torchray."""
    method = ExcitationBp()
    network = peers.torchray_network(block.run.classifier.network, block.run.config.precision)
    subject, evaluate = block.subject(block.setting.batch, method, network), block.evaluator(method.name)
    call = partial(peers.torchray_excitation_bp, subject, block.layer(method.name, RESOLUTION))
    return Case(
        method=method.name,
        setting=f"a batch of images, at {RESOLUTION}; torchray with the rules that it lacks",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, RESOLUTION),
        peers=[Peer("torchray", call, network)],
        distances=relative,
        tolerance=block.tolerance(1e-3, 0.08),
        goes_to_the_input=False,
    )


def metric_at_28(block: Block) -> Case:
    """Deletion and insertion of coarse maps beside the literal loop."""
    n_steps = block.setting.steps
    setting = f"{n_steps} of 200 steps, at {RESOLUTION}"
    return _metric(block, setting, RESOLUTION, n_steps, "literal", peers.literal_deletion_insertion, 1e-4)


def metric_at_224(block: Block) -> Case:
    """Deletion and insertion of fine maps beside quantus, which only has those."""
    # It flips colours one by one: at every step those of one pixel may be on either side. To a pixel more or fewer at
    # every step the areas of VGG19's random weights answer with up to 0.049.
    a_pixel = 0.05 if block.run.classifier.name == "vgg19" else 5e-3
    n_steps, count = block.setting.flips, block.setting.images
    together = f"all {count} images as one batch" if count > 1 else "one image"
    setting = f"{n_steps} of 200 steps, at {INPUT_SIZE}; quantus: {together}"
    return _metric(block, setting, INPUT_SIZE, n_steps, "quantus", peers.quantus_pixel_flipping, a_pixel)


def _metric(
    block: Block,
    setting: str,
    resolution: int,
    n_steps: int,
    peer: str,
    other: Callable[[Subject, Tensor, int], Tensor],
    tolerance: float,
) -> Case:
    # Both peers run the two ends of the curves twice. With all the steps that would not show, with few it does.
    subject, evaluate = block.subject(block.setting.images, Igos()), block.evaluator(METRIC)
    maps = torch.rand(len(subject.images), 1, resolution, resolution, generator=torch.Generator().manual_seed(0))
    maps = maps.to(subject.images)
    return Case(
        method=METRIC,
        setting=setting,
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(areas, evaluate, replace(block.run.protocol, n_steps=n_steps), subject, maps),
        peers=[Peer(peer, partial(other, subject, maps, n_steps), block.released, surplus=2)],
        distances=largest,
        # A probability that both round weighs 1 / n_steps. At 12 steps of Lite0 literal areas are 0.025 from those in
        # fp32, ours 0.010, both 0.031 from each other.
        tolerance=block.tolerance(tolerance, max(0.06, 0.3 / n_steps)),
    )


CASES: list[tuple[str, Callable[[Block], Case]]] = [
    ("igos", igos),
    ("mask", mask),
    ("rise", rise),
    ("integrated_gradients", integrated_gradients),
    ("grad_cam", grad_cam),
    ("excitation_bp", excitation_bp),
    (METRIC, metric_at_28),
    (METRIC, metric_at_224),
]


def explain(method: Method, evaluate: Evaluator, subject: Subject, resolution: int) -> Tensor:
    """Our maps (B,1,r,r)."""
    return method(
        evaluate,
        subject.images,
        subject.targets,
        baselines=subject.baselines,
        resolution=resolution,
        generators=[generator(0, method.name, image_id) for image_id in subject.image_ids],
        run_generator=generator(0, method.name),
    )


def areas(evaluate: Evaluator, protocol: Protocol, subject: Subject, maps: Tensor) -> Tensor:
    """Our areas (B,2) of deletion and insertion."""
    curves = deletion_insertion(evaluate, protocol, subject.images, subject.targets, maps)
    columns = [torch.from_numpy(column) for column in (curves.deletion_auc, curves.insertion_auc)]
    return torch.stack(columns, dim=1).float()
