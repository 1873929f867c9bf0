"""Is this data what I think it is: layout, labels, images that decode, and whether the model recognises them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from .config import RunConfig
from .data import Manifest, read_manifest, warn_of_others
from .errors import say, tell
from .evaluate import Evaluator
from .images import read_image, stream
from .models import load_classifier
from .prepare import choose_device

IMAGES = 200
SHOWN = 5  # of the images that do not decode
MARGIN = 5.0  # percentage points that preprocessing may cost: published numbers are of a resized centre crop
DEVIATIONS = 3.3  # standard errors of a share; one false alarm in a thousand


def check_data(config: RunConfig) -> int:
    """Print what was found; return 0, or 3 where there is something to look at. Raises UserError as a run would."""
    manifest = read_manifest(replace(config.data, limit=None))
    requested = len(manifest.take(config.data.limit))
    say(f"layout    {manifest.layout}")
    say(
        f"images    {len(manifest.images):,} found, {requested:,} would run, sha256 of their ids {manifest.sha256[:12]}"
    )
    say(f"labels    {manifest.labels or 'none; runs need none: the target is the predicted class'}")
    if config.data.layout == "imagenet" and config.data.limit:
        warn_of_others(manifest.take(config.data.limit))
    warnings = _decode_and_recognise(config, manifest)
    for warning in warnings:
        tell(warning)
    return 3 if warnings else 0


def _decode_and_recognise(config: RunConfig, manifest: Manifest) -> list[str]:
    device = choose_device(config.device, config.precision)
    sample = list(islice(manifest.images, IMAGES))  # of the seeded order, so a random sample
    good, labels, failed = [], [], []
    read = partial(read_image, preprocessing=config.preprocessing, max_pixels=config.data.max_pixels)
    for source, image in stream(sample, read, workers=config.data.workers, ahead=8):
        if isinstance(image, Tensor):
            good.append(image)
            labels.append(source.label)
        else:
            failed.append(f"{source.image_id} does not decode: {image}")
    if len(failed) > SHOWN:
        failed[SHOWN:] = [f"and {len(failed) - SHOWN} more of {len(sample)} do not decode"]
    if failed:
        failed.append("fetch these again, or leave them out with data.list=FILE, a file of the ids to take")
    say(f"decoding  {len(good)} of {len(sample)} images of a random sample")
    if not good or None in labels:
        say("accuracy  not checked: there are no labels" if good else "accuracy  not checked: no image decodes")
        return failed
    classifier = load_classifier(config.model, device, precision=config.precision, seed=config.seed)
    evaluate = Evaluator(classifier.network, classifier.fast_network, precision=config.precision)
    predicted = torch.cat([evaluate.logits(part.to(device)) for part in torch.stack(good).split(20)]).argmax(1).cpu()
    share = float((predicted == torch.tensor(labels)).double().mean())
    published = config.model.top1
    known = f", published {published:.1f} %" if published is not None else ""
    say(f"accuracy  {100 * share:.1f} % top-1 of {classifier.name} on {len(good)} images{known}")
    return failed + judge(100 * share, len(good), published)


def judge(accuracy: float, images: int, published: float | None) -> list[str]:
    """Warnings about a top-1 accuracy (percent) on so many images, beside the published one (percent) if known."""
    if images >= 20 and accuracy < 3:
        return [
            f"an accuracy of {accuracy:.1f} % is near chance: the labels are probably in another class order, "
            "or the weights are random; the maps would not mind, a check of accuracy does"
        ]
    if published is None:
        return []
    error = 100 * math.sqrt(published / 100 * (1 - published / 100) / images)
    if abs(accuracy - published) > MARGIN + DEVIATIONS * error:
        return [
            f"an accuracy of {accuracy:.1f} % is far from the published {published:.1f} %: look at the weights, "
            "the labels and the preprocessing"
        ]
    return []
