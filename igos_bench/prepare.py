"""A run made ready: every choice checked, everything loaded, its keys and folder worked out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .batch_size import check_batch_size, choose_batch_size
from .config import Device, Forward, Precision, RunConfig, plain
from .configured import check_numbers, check_resolution, configured_method
from .data import ImageSource, Manifest, Read, read_manifest
from .errors import ImageError, UserError
from .foreign import MapFolder, check_maps
from .images import read_image, stream
from .memory import keep_freed_memory
from .methods import Method
from .metrics import Protocol
from .models import Classifier, Normalised, load_classifier
from .openvino_forward import OpenVINOForward
from .perturb import Baseline, Baselines
from .results import RunDirectory, check_folder_name, short_key
from .shard import Place, Shard, asked_or_auto, find_shard, own_place, task_threads

TARGET_RULE = "predicted"


@dataclass
class Run:
    """One method at one resolution on one model and one set of images under one protocol; nothing is computed yet."""

    config: RunConfig
    method: Method | MapFolder
    protocol: Protocol
    manifest: Manifest
    classifier: Classifier
    device: torch.device
    config_dir: str | None = None
    directory: RunDirectory = field(init=False)
    map_key: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out the keys and the folder."""
        config, method = self.config, self.method
        self.map_key = short_key(
            {
                "method": method.name,
                "method_version": method.version,
                "parameters": self.parameters,
                "resolution": config.resolution,
                "model": self.classifier.name,
                "weights": self.classifier.weights_sha256,
                "data": self.manifest.sha256,
                "preprocessing": config.preprocessing.value,
                "target": TARGET_RULE,
                "precision": config.precision.value,
                "seed": config.seed,
                **({"layer": self.layer} if self.layer else {}),
            }
        )
        protocol_key = short_key({"map": self.map_key, "protocol": plain(asdict(self.protocol))})
        folder = Path(
            config.results_dir, "runs", self.classifier.name, self.manifest.name, method.name, str(config.resolution)
        )
        self.directory = RunDirectory(folder / self.map_key, f"{self.protocol.name}-{protocol_key}")

    @property
    def parameters(self) -> dict[str, Any]:
        """The method's hyper-parameters as JSON has them; of maps made elsewhere, their digest."""
        if isinstance(self.method, MapFolder):
            return {"maps": self.method.sha256}
        found: dict[str, Any] = plain(asdict(self.method))  # type: ignore[call-overload]
        return found

    @property
    def maps(self) -> MapFolder | None:
        """The maps that are scored, if they were made elsewhere."""
        return self.method if isinstance(self.method, MapFolder) else None

    @property
    def layer(self) -> str | None:
        """Name of the layer that the method reads, for those that read one."""
        if self.method.resolutions != "from the model":
            return None
        return self.classifier.layer_names_for(self.method.name)[self.config.resolution]

    @property
    def images(self) -> Sequence[ImageSource]:
        """The requested images."""
        return self.manifest.take(self.config.data.limit)

    @property
    def shard(self) -> Shard:
        """What of the run this process computes."""
        return find_shard(self.config.shard)

    def choose_batch_size(self) -> int:
        """The micro-batch of a run that starts now; `auto` may measure, see `batch_size`."""
        config, classifier = self.config, self.classifier
        name = f"{classifier.name}-{classifier.weights_sha256[:8]}"
        asked = config.evaluate.batch_size
        return choose_batch_size(asked, name, classifier.fast_network, self.device, config.precision)

    def forward_network(self, forward: str | None) -> OpenVINOForward | None:
        """What runs passes without a gradient in the place of the classifier's fast network; raises UserError."""
        if forward in (None, Forward.torch):
            return None
        if self.device.type != "cpu":
            raise UserError(f"evaluate.forward=openvino is of the CPU alone, and the device is {self.device.type}")
        return _compiled(self.classifier.network, self.config.precision)

    @property
    def baselines(self) -> set[Baseline]:
        """Those that method and protocol ask for."""
        of_method = set() if isinstance(self.method, MapFolder) else {self.method.baseline}
        return {self.protocol.deletion_baseline, self.protocol.insertion_baseline, *of_method}

    def read(self, source: ImageSource) -> Baselines | ImageError:
        """An image (1,3,224,224) as this run sees it, on the CPU; where the network is there, with its baselines."""
        image = read_image(source, self.config.preprocessing, self.config.data.max_pixels)
        if isinstance(image, ImageError):
            return image
        found = Baselines(image[None])
        if self.device.type == "cpu":  # another device makes them sooner
            with suppress(Exception):  # it comes again where they are asked for, and is that image's reason
                found.make(self.baselines)
        return found

    def decode(
        self, images: Iterable[ImageSource], *, ahead: int
    ) -> Iterator[tuple[ImageSource, Baselines | ImageError]]:
        """Read images in the background, `ahead` of them before they are asked for; see `images.stream`."""
        return stream(images, self.read, workers=self.config.data.workers, ahead=ahead)


def prepare(config: RunConfig, read: Read = read_manifest, config_dir: str | None = None) -> Run:
    """Load and check everything that a run needs; raises UserError before anything is computed.

    Args:
        config: What is asked for.
        read: Reads the manifest; the cells of a sweep share one from `read_once`.
        config_dir: Of the user's own YAML files, where there are any.
    """
    check_numbers(config)
    config = replace(config, shard=asked_or_auto(config.shard, os.environ))
    check_batch_size(config.evaluate.batch_size)
    for key, name in (("model", config.model.name), ("data", config.data.name), ("protocol", config.protocol.name)):
        check_folder_name(f"{key}.name", name)
    if not config.results_dir:
        raise UserError("results_dir is empty: name a folder, such as results_dir=results")
    protocol = Protocol.from_config(config.protocol)
    method: Method | MapFolder
    if config.maps is None and config.name is None:
        method = configured_method(config)
        manifest = read(config.data)
    else:
        manifest = read(config.data)
        requested = [image.image_id for image in manifest.take(config.data.limit)]
        method = check_maps(config.maps, config.name, requested)
        config = replace(config, method={"name": method.name}, resolution=method.resolution)
    find_shard(config.shard)  # before anything is loaded
    place = own_place(config.shard, os.environ)
    device = choose_device(config.device, config.precision, place)
    forbid_shortcuts()
    if device.type == "cpu":
        keep_freed_memory()
        if threads := (place.threads if place else task_threads)(os.environ, _cores()):
            torch.set_num_threads(threads)
    classifier = _classifier(config, device)
    if method.resolutions == "from the model":
        check_resolution(method.name, classifier.name, config.resolution, tuple(classifier.layers_for(method.name)))
    return Run(config, method, protocol, manifest, classifier, device, config_dir)


@lru_cache(maxsize=1)
def _compiled(network: Normalised, precision: Precision) -> OpenVINOForward:
    """The last one is kept, as the classifier is."""
    return OpenVINOForward(network, precision)


_last_classifier: dict[str, Classifier] = {}


def _classifier(config: RunConfig, device: torch.device) -> Classifier:
    """The last one is kept: the cells of a sweep mostly share it."""
    asked = repr((config.model, device, config.precision, config.seed if config.model.weights is None else None))
    if asked not in _last_classifier:
        _last_classifier.clear()
        _compiled.cache_clear()
        _last_classifier[asked] = load_classifier(config.model, device, precision=config.precision, seed=config.seed)
    return _last_classifier[asked]


def choose_device(device: Device, precision: Precision, place: Place | None = None) -> torch.device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU; of several CUDA devices that of the `place`.

    Raises:
        UserError: It is not there, or has no such precision.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(name for name, there in available.items() if there) if device is Device.auto else device.value
    if not available[chosen]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UserError(f"device={chosen} is not available here; available: {there}")
    if precision is Precision.tf32 and chosen != "cuda":
        raise UserError(f"precision=tf32 is of CUDA devices alone, and the device is {chosen}: write precision=fp32")
    if place is None or chosen != "cuda":
        return torch.device(chosen)
    mine = torch.device("cuda", place.device(torch.cuda.device_count()))
    torch.cuda.set_device(mine)  # for what is asked of the current device
    return mine


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forbid_shortcuts() -> None:
    """fp32 means fp32: no TF32 unless asked for, no autotuning, deterministic algorithms where there are any."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor with NaN, to catch reads of what was never written: a fifth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
