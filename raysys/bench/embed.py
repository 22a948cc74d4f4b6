"""`raysys embed` from tars to Parquet files, in photos per second.

The limit is the same encoder on prepared photos in memory, with all cores or the GPU to itself. The baseline
is what a script does: webdataset, PyTorch's DataLoader and the encoder, batch by batch; it keeps its vectors
in memory. On a GPU the model is SigLIP-B/16-256 with random weights, on a CPU that of `encoder.start`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy import ndarray

from raysys import storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.bench import photos
from raysys.bench.config import BenchRunConfig
from raysys.bench.cpu_time import cpu_seconds
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.models import write_siglip_b16, write_start
from raysys.cluster.capacity import Node
from raysys.config.schema import EmbedConfig, RayConfig, StreamConfig
from raysys.embed.options import EncoderOptions, options_on
from raysys.embed.shared_encoder import SharedEncoder, open_encoder
from raysys.encoder import start
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.image_encoder import ImageEncoderInfo, describe_image_encoder
from raysys.shards.reader import ShardRef, shards_of
from raysys.stream.decode import EmbeddingDecoder
from raysys.synth import generate_items

RAYSYS, BASELINE, LIMIT = "raysys embed", "DataLoader over webdataset", "encoder alone"
_SEED = 7
_NUM_DISTINCT_PHOTOS, _PHOTOS_PER_SHARD, _MAX_PHOTOS = 32, 128, 4096
_BLOCKS_AHEAD = 24  # that may wait for decoders and encoder
_MIN_MEASURED_BLOCKS = 4
_ROLES = {"encoder": "EmbeddingActor", "decoder": "_Decoder"}
_PROBE_S, _PROBED_PHOTOS = 1.0, 20


@dataclass(frozen=True)
class EmbedWork:
    """What every contender embeds: photos before, while and after it is measured."""

    folder: Path
    shards_uri: str
    encoder: ImageEncoderInfo
    section: EmbedConfig
    stream: StreamConfig
    ray: RayConfig
    num_warm_up: int
    num_measured: int

    @property
    def num_photos(self) -> int:
        """As many follow as may have been decoded ahead, so that decoders work until the end."""
        return self.num_warm_up + self.num_measured + (_BLOCKS_AHEAD + 2) * _PHOTOS_PER_SHARD

    @property
    def options(self) -> EncoderOptions:
        return _options(self.section)

    def shards(self) -> list[ShardRef]:
        """Shards of `num_photos` photos or more: those of the set again and again, as other splits."""
        shards = shards_of(self.shards_uri)
        passes = -(-self.num_photos // sum(shard.num_items for shard in shards))
        return [
            dataclasses.replace(shard, split=f"pass{number}") for number in range(passes) for shard in shards
        ]


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per photo size, on the GPU if there is one, else on the CPU."""
    on_gpu = torch.cuda.is_available()
    section = config.embed.model_copy(update={"use_gpu": on_gpu, "actors": 1})
    encoder = describe_image_encoder(_publish_encoder(config, folder / "encoder", on_gpu=on_gpu))
    encoder_rate = _encoder_rate(encoder, _options(section))
    for megapixels in config.bench.embed_megapixels:
        rate = min(encoder_rate, _decoding_rate(encoder, megapixels))
        num_blocks = max(_MIN_MEASURED_BLOCKS, round(rate * config.bench.embed_seconds / _PHOTOS_PER_SHARD))
        num_measured = num_blocks * _PHOTOS_PER_SHARD
        num_warm_up = max(num_measured // 2, 2 * _PHOTOS_PER_SHARD)
        place = folder / f"{megapixels:g}"
        shards_uri = photos.make_shard_set(
            place / "shards",
            megapixels,
            num_items=min(_MAX_PHOTOS, num_warm_up + num_measured),
            num_distinct=_NUM_DISTINCT_PHOTOS,
            items_per_shard=_PHOTOS_PER_SHARD,
            seed=_SEED,
        )
        stream = _bounded(config.stream, shards_uri, encoder)
        work = EmbedWork(place, shards_uri, encoder, section, stream, config.ray, num_warm_up, num_measured)
        contenders: dict[str, Callable[[], Measurement]] = {
            RAYSYS: partial(run_raysys, work),
            BASELINE: partial(run_dataloader, work),
            LIMIT: partial(run_encoder_alone, work),
        }
        properties = {
            "megapixels": megapixels,
            "photos_measured": num_measured,
            "batch_size": section.batch_size,
            "cores": os.cpu_count() or 1,
            "on_gpu": float(on_gpu),
        }
        name = f"{'B/16-256' if on_gpu else config.encoder.start}, {megapixels:g} Mpx"
        yield Case(name, "photos/s", contenders, BASELINE, LIMIT, properties)


def _bounded(stream: StreamConfig, shards_uri: str, encoder: ImageEncoderInfo) -> StreamConfig:
    """The stream with a limit for photos that wait, compressed or decoded, unless it has one."""
    shard = shards_of(shards_uri)[0]
    decoded_bytes = (
        shard.num_items * int(np.prod(encoder.image.shape)) * np.dtype(encoder.image.dtype).itemsize
    )
    megabytes = max(1, _BLOCKS_AHEAD * (shard.num_bytes + decoded_bytes) >> 20)
    return stream.model_copy(update={"object_store_megabytes": stream.object_store_megabytes or megabytes})


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The two ratios, and where the time goes."""
    lines = []
    for result in results:
        ours, alone = result.contenders[RAYSYS], result.contenders[LIMIT]
        of_ours = {name: spread.median for name, spread in ours.metrics.items()}
        encode_ms, decode_ms = of_ours["encode_cpu_ms"], of_ours["decode_cpu_ms"]
        other_ms = of_ours["cpu_ms"] - encode_ms - decode_ms
        alone_ms = alone.metrics["cpu_ms"].median
        lines += [
            f"{result.case}: {RAYSYS} is {ours.vs_limit:.2f} of the limit and "
            f"{ours.vs_baseline:.2f} x {BASELINE}",
            f"{result.case}: the encoder computed {of_ours['encoder_busy']:.0%} of the time; CPU time of a "
            f"photo: {encode_ms:.2f} ms in the encoder, {decode_ms:.2f} in decoders, {other_ms:.2f} in "
            f"readers, Ray and the driver; writing took {of_ours['write_ms']:.2f} ms, in another thread",
        ]
        if not result.properties["on_gpu"]:
            both_ms = alone_ms + decode_ms
            lines.append(
                f"{result.case}: decoders share the CPU with the encoder, which takes {alone_ms:.2f} ms "
                f"alone: at most {alone_ms:.2f} / {both_ms:.2f} = {alone_ms / both_ms:.2f} of the limit"
            )
    return lines


def run_raysys(work: EmbedWork) -> Measurement:
    """`raysys embed` without its checks before and its publication after; the start is not counted.

    Decoders continue after the last photo that counts, and `decoded` is how many photos they decoded for
    each that was embedded meanwhile: below 1, photos decoded before would count.
    """
    from raysys.cluster import session
    from raysys.embed.job import embed_shards

    session.connect(work.ray)
    folder = work.folder / f"embeddings-{time.time_ns()}"
    folder.mkdir()
    decoder = _LoggingDecoder(work.encoder.image, log=str(folder / ".decoded"))
    rows: Any = embed_shards(
        str(folder), work.encoder, work.shards(), decoder, work.section, work.stream, may_grow=False
    )
    window, num_photos, encoder_s, write_s = _Window(work, _ROLES), 0, 0.0, 0.0
    with contextlib.closing(rows):
        for row in rows:
            if window.is_open:
                encoder_s += row["seconds"]
                write_s += row["write_seconds"]
            num_photos += row["num_items"]
            if window.advance(num_photos):
                break
    num_decoded = sum(num for at_s, num in decoder.read_log() if window.began_s < at_s <= window.ended_s)
    return window.measurement(
        encode_cpu_ms=window.cpu_ms("encoder"),
        decode_cpu_ms=window.cpu_ms("decoder"),
        encoder_busy=encoder_s / window.seconds,
        write_ms=1e3 * write_s / window.num_photos,
        decoded=num_decoded / window.num_photos,
    )


def run_dataloader(work: EmbedWork) -> Measurement:
    """webdataset and DataLoader as their documentation has them, one decoding worker for each core."""
    import webdataset
    from torch.utils.data import DataLoader

    def prepare(sample: dict[str, bytes]) -> ndarray:
        return np.array(work.encoder.image(sample["jpg"]))  # PyTorch wants an array that can be written

    tars = [str(storage.local_path(shard.uri)) for shard in shards_of(work.shards_uri)]
    dataset = webdataset.WebDataset(tars, shardshuffle=False).repeat().map(prepare)
    loader = DataLoader(
        dataset,
        batch_size=work.section.batch_size,
        num_workers=min(os.cpu_count() or 1, len(tars)),
        pin_memory=work.section.use_gpu,
        multiprocessing_context="fork",  # DataLoader's default on Linux, but not in a spawned process
    )
    encoder = open_encoder(work.encoder.source, dataclasses.replace(work.options, is_compiled=False))
    vectors, window, num_photos = list[ndarray](), _Window(work), 0
    for batch in loader:
        vectors.append(encoder.embed_pixels(batch.numpy(), len(batch)))
        num_photos += len(batch)
        if window.advance(num_photos):
            break
    return window.measurement()


def run_encoder_alone(work: EmbedWork) -> Measurement:
    """The limit: prepared photos in memory, in a loop."""
    window = _Window(work)
    for num_photos in _encode_in_memory(work.encoder, work.options):
        if window.advance(num_photos):
            break
    return window.measurement()


class _Window:
    """The photos that count: from the end of the warm-up to the last measured one."""

    def __init__(self, work: EmbedWork, roles: Mapping[str, str] | None = None) -> None:
        self._work, self._roles = work, roles or {}
        self.is_open = False
        self.began_s = self.ended_s = 0.0
        self.num_photos = 0
        self._cpu: dict[str, float] = {}

    def advance(self, num_photos: int) -> bool:
        """So many photos are embedded; whether these are enough."""
        if not self.is_open and num_photos >= self._work.num_warm_up:
            self.is_open, self.began_s, self._first = True, time.monotonic(), num_photos
            self._cpu = cpu_seconds(self._roles)
        elif num_photos >= self._work.num_warm_up + self._work.num_measured:
            self.ended_s, self.num_photos = time.monotonic(), num_photos - self._first
            now = cpu_seconds(self._roles)
            self._cpu = {role: seconds - self._cpu.get(role, 0.0) for role, seconds in now.items()}
            return True
        return False

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s

    def cpu_ms(self, role: str) -> float:
        """CPU time a photo."""
        return 1e3 * self._cpu.get(role, 0.0) / self.num_photos

    def measurement(self, **metrics: float) -> Measurement:
        """Photos per second; `cpu_ms` is the CPU time a photo of all processes."""
        cpu_ms = 1e3 * sum(self._cpu.values()) / self.num_photos
        return Measurement(self.num_photos / self.seconds, {"cpu_ms": cpu_ms, **metrics})


@dataclass(frozen=True)
class _LoggingDecoder(EmbeddingDecoder):
    """Writes to a file when it has decoded how many photos."""

    log: str = ""

    def __call__(self, block: pa.Table) -> pa.Table:
        decoded = super().__call__(block)
        storage.append_bytes(self.log, f"{time.monotonic()} {len(block)}\n".encode())
        return decoded

    def read_log(self) -> list[tuple[float, int]]:
        """Time and photos of each block."""
        lines = (line.split() for line in Path(self.log).read_text(encoding="utf-8").splitlines())
        return [(float(at_s), int(num)) for at_s, num in lines]


def _encode_in_memory(info: ImageEncoderInfo, options: EncoderOptions) -> Generator[int, None, None]:
    """Embed blocks of prepared photos without end, several at a time; yields the number of photos so far."""
    encoder = SharedEncoder(open_encoder(info.source, options), options)
    rng = np.random.default_rng(_SEED)
    block = list(rng.integers(0, 256, (_PHOTOS_PER_SHARD, *info.image.shape)).astype(info.image.dtype))
    waiting = deque(encoder.submit(block) for _ in range(options.blocks_at_a_time))
    for number in itertools.count(1):
        waiting.popleft().result()
        waiting.append(encoder.submit(block))
        yield number * _PHOTOS_PER_SHARD


def _options(section: EmbedConfig) -> EncoderOptions:
    """As on a cluster of this machine."""
    cores = os.cpu_count() or 1
    return options_on(section, [Node("", {"CPU": float(cores)})], cores)


def _encoder_rate(info: ImageEncoderInfo, options: EncoderOptions) -> float:
    """Photos per second of the encoder, roughly, to choose how many photos to embed."""
    encoded = _encode_in_memory(info, options)
    warm_up, began = next(encoded), time.monotonic()
    while time.monotonic() - began < _PROBE_S:
        num_photos = next(encoded)
    return (num_photos - warm_up) / (time.monotonic() - began)


def _decoding_rate(info: ImageEncoderInfo, megapixels: float) -> float:
    """Photos per second that all cores decode, roughly: on a GPU the encoder may be faster."""
    photo = photos.photo_like(generate_items(1, _SEED)[0], megapixels, _SEED)
    began = time.monotonic()
    for _ in range(_PROBED_PHOTOS):
        info.image(photo)
    return (os.cpu_count() or 1) * _PROBED_PHOTOS / (time.monotonic() - began)


def _publish_encoder(config: BenchRunConfig, folder: Path, *, on_gpu: bool) -> str:
    """Publish the start of the configuration; on a GPU with the model of SigLIP-B/16-256."""

    def write_files(draft: Path) -> None:
        write_start(config, draft)
        if on_gpu:
            write_siglip_b16(draft)

    spec = ArtifactSpec(str(folder), EncoderBundleManifest, {}, {})
    publish_bundle(spec, write_files, text=start.text_preprocessing(config.encoder))
    return str(folder)
