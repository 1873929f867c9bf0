"""What `bench.py` compares: each method beside its peers, with how far apart their results may be.

In fp32 the tolerances are those of the tests, which run the same comparisons on other networks, with room for other
machines. In bf16 both sides round, each in its own order: most tolerances are about twice the largest difference that
was seen (two machines, 2026-11-25 and 26), all are below what zeros would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import peers
import torch
from bench_setup import GRAD_CAM_RESOLUTION, RESOLUTION, Setting, evaluator
from peers import AsReleased, Subject
from torch import Tensor

from igos_bench.batch import generator
from igos_bench.config import INPUT_SIZE, Precision
from igos_bench.evaluate import Evaluator
from igos_bench.methods import ExcitationBp, GradCam, Igos, IntegratedGradients, Mask, Method, Rise
from igos_bench.methods.rise import RandomMasks
from igos_bench.metrics import Protocol, deletion_insertion
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
        evaluate: Counts our passes.
        ours: The whole call, for all images.
        peers: The others.
        difference: How far apart two results are.
        tolerance: The largest difference that is none.
        goes_to_the_input: Its passes are those that the ceiling measures: Grad-CAM and Excitation BP stop at a layer.
    """

    method: str
    setting: str
    images: int
    evaluate: Evaluator
    ours: Callable[[], Tensor]
    peers: list[Peer]
    difference: Callable[[Tensor, Tensor], float]
    tolerance: float
    goes_to_the_input: bool = True


def relative(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs|| of the worst image."""
    norms = [(tensor.flatten(1).norm(dim=1)) for tensor in (ours - theirs, theirs)]
    return float((norms[0] / norms[1].clamp(min=1e-30)).max())


def mean_absolute(ours: Tensor, theirs: Tensor) -> float:
    """The mean over elements of |ours - theirs|, of the worst image."""
    return float((ours - theirs).abs().flatten(1).mean(1).max())


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest |ours - theirs|."""
    return float((ours - theirs).abs().max())


@dataclass(frozen=True)
class Block:
    """One network and precision: what its cases share, our micro-batch among it."""

    run: Run
    setting: Setting
    micro_batch: int
    images: Tensor
    targets: Tensor
    image_ids: list[str]
    released: AsReleased

    @classmethod
    def of(cls, run: Run, setting: Setting, micro_batch: int) -> Block:
        """Decode the images and ask our network for the targets."""
        decoded = [image for _, image in run.decode(run.images, ahead=4) if isinstance(image, Tensor)]
        images = torch.stack(decoded).to(run.device)
        targets = evaluator(run, "igos", micro_batch).logits(images).argmax(1)
        released = AsReleased(run.classifier.network, run.config.precision)
        return cls(run, setting, micro_batch, images, targets, [source.image_id for source in run.images], released)

    def evaluator(self, method: str) -> Evaluator:
        """Our way to the network, for a method."""
        return evaluator(self.run, method, self.micro_batch)

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
    """I-GOS beside the literal loop."""
    iterations, path_steps = block.setting.igos_iterations, block.setting.path_steps
    method = Igos(iterations=iterations, path_steps=path_steps)
    subject, evaluate = block.subject(block.setting.together, method), block.evaluator("igos")
    l1, l2 = method.lambdas[RESOLUTION]
    return Case(
        method=method.name,
        setting=f"{iterations} of 15 iterations, {path_steps} path points, at {RESOLUTION}",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, RESOLUTION),
        peers=[
            Peer(
                "literal",
                partial(peers.literal_igos, subject, RESOLUTION, l1, l2, iterations, path_steps),
                block.released,
            )
        ],
        difference=mean_absolute,
        tolerance=block.tolerance(1e-3, 0.05),
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
        difference=mean_absolute,
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
        difference=relative,
        tolerance=block.tolerance(1e-4, in_bf16),
    )


def integrated_gradients(block: Block) -> Case:
    """Integrated Gradients beside captum."""
    method = IntegratedGradients(steps=block.setting.path_steps)
    subject, evaluate = block.subject(block.setting.images, method), block.evaluator(method.name)
    call = partial(peers.captum_integrated_gradients, subject, method.steps)
    return Case(
        method=method.name,
        setting=f"{method.steps} steps",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(explain, method, evaluate, subject, INPUT_SIZE),
        peers=[Peer("captum", call, block.released)],
        difference=relative,
        tolerance=block.tolerance(0.05, 0.8),
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
        difference=relative,
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
        difference=relative,
        tolerance=block.tolerance(1e-3, 0.08),
        goes_to_the_input=False,
    )


def metric_at_28(block: Block) -> Case:
    """Deletion and insertion of coarse maps beside the literal loop."""
    return _metric(block, RESOLUTION, block.setting.steps, "literal", peers.literal_deletion_insertion, 1e-4)


def metric_at_224(block: Block) -> Case:
    """Deletion and insertion of fine maps beside quantus, which only has those."""
    # It flips colours one by one: at every step those of one pixel may be on either side. To a pixel more or fewer at
    # every step the areas of VGG19's random weights answer with up to 0.049.
    a_pixel = 0.05 if block.run.classifier.name == "vgg19" else 5e-3
    return _metric(block, INPUT_SIZE, block.setting.flips, "quantus", peers.quantus_pixel_flipping, a_pixel)


def _metric(
    block: Block,
    resolution: int,
    n_steps: int,
    peer: str,
    other: Callable[[Subject, Tensor, int], Tensor],
    tolerance: float,
) -> Case:
    # Both peers run the two ends of the curves twice. With all the steps that would not show, with few it does.
    subject, evaluate = block.subject(block.setting.images, Igos()), block.evaluator("igos")
    maps = torch.rand(len(subject.images), 1, resolution, resolution, generator=torch.Generator().manual_seed(0))
    maps = maps.to(subject.images)
    return Case(
        method=METRIC,
        setting=f"{n_steps} of 200 steps, at {resolution}",
        images=len(subject.images),
        evaluate=evaluate,
        ours=partial(areas, evaluate, replace(block.run.protocol, n_steps=n_steps), subject, maps),
        peers=[Peer(peer, partial(other, subject, maps, n_steps), block.released, surplus=2)],
        difference=largest,
        tolerance=block.tolerance(tolerance, 0.03),
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
