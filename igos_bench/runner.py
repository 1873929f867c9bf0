"""The loop: image -> saliency map -> curves -> row, chunk by chunk, with resume, shared between processes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .chunk import Decoded, compute, failed_again
from .config import plain
from .data import ImageSource
from .errors import UserError
from .evaluate import Evaluator
from .formats import Row, by_id
from .lease import Lease, LeaseLostError, Leases
from .openvino_forward import OpenVINOForward
from .prepare import Run
from .provenance import continued, describe, kept_choices, now
from .results import RunDirectory
from .rows import failed_rows
from .share import Report, Share, Tell


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        directory: The run's.
        records: The file that has the rows; the folder of those of the chunks where the run is not whole.
        rows: Of all requested images, or of those of this shard.
        resumed: How many of these images were there before.
        whole: Rows of all requested images; None where some are left to other shards.
    """

    directory: Path
    records: Path
    rows: Sequence[Row]
    resumed: int
    whole: Sequence[Row] | None


def execute(
    run: Run,
    report: Report,
    *,
    explain: bool = True,
    tell: Tell = print,
    expect: Callable[[int], None] = lambda _count: None,
) -> Outcome:
    """Compute what is missing of a run, or of this process's shard, and wait for what others compute of that.

    Args:
        run: What `prepare` made.
        report: Called with the number of images done and their rows after every chunk, whoever computed it.
        explain: False scores stored maps and raises UserError where there are none. Maps that were made elsewhere
            are only ever scored.
        tell: Called with a line for people that is no progress: who is waited for, from whom a chunk is taken over,
            what stays as the run began.
        expect: Called before `report` with the number of images that it will be told of.
    """
    directory = run.directory
    images = run.images
    listing = run.manifest.listing(run.config.data.limit)
    run.forward_network(run.config.evaluate.forward)  # refused before anything is written
    with Leases(directory.path / "leases", run.config.lease_seconds) as leases:
        provenance = _start(run, leases, listing, tell)
        if note := kept_choices(provenance, run):
            tell(note)
        size = provenance["chunk_size"]
        evaluate = Evaluator(
            run.classifier.network,
            run.classifier.fast_network,
            provenance["batch_size"],
            run.config.precision,
            run.classifier.layers_for(run.method.name),
            float32_network=run.classifier.in_float32,
        )
        chunks = [images[start : start + size] for start in range(0, len(images), size)]
        share = Share(directory, leases, chunks, run.shard, report, tell)
        before = sorted(set(share.mine) - set(share.missing))
        if not (explain or run.maps) and (lost := [i for i in share.missing if not _has_maps(directory, i, chunks[i])]):
            raise UserError(
                f"{len(lost)} of {len(share.mine)} chunks have no stored maps in {directory.path / 'maps'}: "
                f"make them first with the same words after `igos-bench run`"
            )
        if share.missing:
            evaluate.forward_network = _engine(run, provenance)
            _amend(run, leases, lambda found: continued(found, run), tell)
        expect(sum(len(chunks[i]) for i in share.mine))
        resumed = sum(len(chunks[i]) for i in before)
        report(resumed, share.gathered(before))
        try:
            share.pack_what_was_left()
            while share.missing:
                for lease, decoded, seconds in _decoded(run, share):
                    try:
                        share.done(lease, _rows_of(run, evaluate, share, lease, decoded, seconds, explain=explain))
                    except LeaseLostError:
                        share.lost(lease)
                if share.missing:
                    share.wait()
        except BaseException:
            if not run.shard:  # beside other shards records.csv would be made again and again; the last one makes it
                with suppress(UserError):  # what ended the run is told, not that this could not be done on top of it
                    directory.merge()
            raise
        mine = share.gathered(share.mine)
        is_whole = share.is_whole()
        share.pack(all_there_is=is_whole)
        if not is_whole:
            return Outcome(directory.path, directory.protocol_path / "records", mine, resumed, None)
        records = directory.merge()
        whole = share.gathered(range(len(chunks)))
        ended = {
            "finished": now(),
            "images_sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "requested": len(images),
            "done": len(whole) - len(failed_rows(whole)),
        }
        if evaluate.batch_size < provenance["batch_size"]:
            ended["batch_size_after_out_of_memory"] = evaluate.batch_size
        _amend(run, leases, lambda found: {**found, **ended}, tell)
    return Outcome(directory.path, records, mine, resumed, whole)


def _decoded(run: Run, share: Share) -> Iterator[tuple[Lease, list[Decoded], float]]:
    """The chunks that this process gets, each with its images to try and the seconds that they were waited for.

    The next chunk is claimed and decoded while one is computed.
    """
    decoded = run.decode(share.images(), ahead=max(map(len, share.chunks)))
    while True:
        started = time.perf_counter()
        first = next(decoded, None)
        if first is None:
            return
        lease, tried = share.claimed.popleft()
        others = islice(decoded, len(tried) - 1)
        yield lease, [first, *others], time.perf_counter() - started


def _rows_of(
    run: Run, evaluate: Evaluator, share: Share, lease: Lease, decoded: list[Decoded], seconds: float, *, explain: bool
) -> list[Row]:
    """Compute a chunk, whole unless only images that failed are tried again, and do so again; raises LeaseLostError."""
    chunk = share.chunks[int(lease.name)]
    if len(decoded) < len(chunk):
        if rows := failed_again(run, evaluate, lease, decoded, explain=explain):
            return rows
        started = time.perf_counter()
        decoded = list(run.decode(chunk, ahead=len(chunk)))
        seconds += time.perf_counter() - started
    return compute(run, evaluate, lease, decoded, seconds, explain=explain)


def _has_maps(directory: RunDirectory, index: int, chunk: Sequence[ImageSource]) -> bool:
    """Whether every image of the chunk has its map, or once failed to get one."""
    stored = directory.read_maps(index)
    if stored is None:
        return False
    return {image.image_id for image in chunk} <= set(by_id(stored, "saliency_map")) | directory.failed_ids(index)


def _engine(run: Run, provenance: dict[str, Any]) -> OpenVINOForward | None:
    """What the run began with for passes without a gradient."""
    began = provenance.get("forward")
    try:
        return run.forward_network(began)
    except UserError as error:  # asked for now it would have been refused before
        raise UserError(
            f"the run in {run.directory.path} began with evaluate.forward={began}, and goes on so: set another "
            f"results_dir to have it otherwise ({error})"
        ) from None


def _start(run: Run, leases: Leases, listing: str, tell: Tell) -> dict[str, Any]:
    """run.json of this run, made by whoever starts it first; sizes and engine stay as they were fixed then."""
    try:
        with leases.wait_for("run", tell) as lease:
            found = run.directory.read_provenance()
            if found is None:
                found = describe(run)
                run.directory.write_provenance(found, lease)
            elif found.get("map_key") != run.map_key:
                raise UserError(
                    f"{run.directory.path / 'run.json'} says map_key={found.get('map_key')}, this run has "
                    f"{run.map_key}: the folder was copied or edited; it is left untouched, set another results_dir"
                )
            run.directory.write_listing(listing, lease)
            run.directory.write_protocol(plain(asdict(run.protocol)))
    except LeaseLostError:
        return _start(run, leases, listing, tell)
    return found


def _amend(run: Run, leases: Leases, change: Callable[[dict[str, Any]], dict[str, Any]], tell: Tell) -> None:
    """Change run.json as it is now: another process may have done so since this one has read it."""
    try:
        with leases.wait_for("run", tell) as lease:
            found = run.directory.read_provenance() or {}
            if (changed := change(found)) != found:
                run.directory.write_provenance(changed, lease)
    except LeaseLostError:
        _amend(run, leases, change, tell)
