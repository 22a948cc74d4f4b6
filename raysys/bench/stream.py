"""From tars to ready batches, in photos per second: pixels at the model's size and token ids.

All contenders read the same tars and decode with the same functions. The baseline is webdataset's own loader;
the limit runs those functions in a loop over bytes in memory. No contender augments; only raysys shuffles.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy import ndarray

from raysys import storage
from raysys.bench import photos
from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.models import write_start
from raysys.cluster import session
from raysys.cluster.capacity import Demand
from raysys.columns import PIXELS, TITLE, TOKENS
from raysys.config.schema import AugmentConfig, RayConfig, StreamConfig
from raysys.encoder import siglip, start
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, to_pixels
from raysys.encoder.text import TextPreprocessing, to_tokens
from raysys.shards.reader import read_shard, shards_of
from raysys.synth import generate_items

RAYSYS, RAYSYS_SCALED = "raysys", "raysys, scaled decode"
RAYSYS_REMOTE = "raysys, object store"
BASELINE, RAY_DATA, LIMIT = "webdataset.WebLoader", "ray.data.read_webdataset", "decode loop in memory"
_SEED = 7
_NO_AUGMENTATION = AugmentConfig(crop_min_area=1.0, flip_probability=0.0, brightness=0.0)
_SHARD_BYTES = 32 << 20
_SET_BYTES = 256 << 20
_MAX_ITEMS, _MIN_ITEMS_PER_SHARD, _MIN_SHARDS = 4096, 4, 8
_DISTINCT_PIXELS = 48e6
_MAX_BATCH_MEGAPIXELS = 64.0
_MIN_MEASURED_BATCHES = 4  # per worker

# A ready batch: pixels uint8 [batch, size, size, 3] and token ids [batch, ..]. None if the batch stays in the
# process that decoded it.
ReadyBatch: TypeAlias = tuple[Any, Any] | None


@dataclass(frozen=True)
class StreamWork:
    """The input of every contender, and the number of batches to produce."""

    shards_uri: str
    remote_uri: str | None  # a copy of the shards on an object store
    encoder_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    workers: int
    batch_size: int
    num_warm_up: int  # batches, a multiple of `workers`
    num_measured: int  # batches, a multiple of `workers`
    stream: StreamConfig
    ray: RayConfig

    @property
    def num_readers(self) -> int:
        """Reading tasks of raysys and of Ray Data."""
        return self.stream.read_concurrency or 1

    @property
    def num_batches(self) -> int:
        return self.num_warm_up + self.num_measured


Reader: TypeAlias = Callable[[StreamWork], Iterator[ReadyBatch]]


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per photo size and number of workers."""
    encoder = folder / "encoder"
    write_start(config, encoder)
    image, text = siglip.image_preprocessing_of(encoder), start.text_preprocessing(config.encoder)
    for megapixels in config.bench.megapixels:
        shards_uri, photo_bytes, decode_s = _prepare(folder / f"{megapixels}", megapixels, image)
        remote_uri = _upload(shards_uri, config.bench.remote_root)
        batch_size = config.bench.batch_size
        while batch_size > 1 and batch_size * megapixels > _MAX_BATCH_MEGAPIXELS:
            batch_size //= 2
        measured = max(_MIN_MEASURED_BATCHES, round(config.bench.seconds / (batch_size * decode_s)))
        for workers in config.bench.workers:
            work = StreamWork(
                shards_uri,
                remote_uri,
                str(encoder),
                image,
                text,
                workers,
                batch_size,
                _warm_up_batches(measured) * workers,
                measured * workers,
                config.stream,
                config.ray,
            )
            properties = {
                "megapixels": megapixels,
                "workers": workers,
                "batch_size": batch_size,
                "photos_measured": measured * workers * batch_size,
                "photo_bytes": photo_bytes,
            }
            name = f"{megapixels:g} Mpx, {workers} worker{'s' if workers > 1 else ''}"
            yield Case(name, "photos/s", _contenders(work), BASELINE, LIMIT, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The ratios of raysys to the baseline and the limit, and of object store to disk, case by case."""
    lines = [
        f"{result.case}: {name} is {contender.vs_baseline:.2f} x {result.baseline}, "
        f"{contender.vs_limit:.2f} of the limit"
        for result in results
        for name, contender in result.contenders.items()
        if name in (RAYSYS, RAYSYS_SCALED)
    ]
    for result in results:
        if remote := result.contenders.get(RAYSYS_REMOTE):
            ratio = remote.rate.median / result.contenders[RAYSYS].rate.median
            lines.append(f"{result.case}: {RAYSYS_REMOTE} is {ratio:.2f} x {RAYSYS}")
    return lines


def read_raysys(work: StreamWork, *, scaled: bool = False, remote: bool = False) -> Iterator[ReadyBatch]:
    """The stream that training reads; `remote`: from the copy on the object store."""
    from raysys.stream.blocks import rows_per_block
    from raysys.stream.concurrency import Concurrency
    from raysys.stream.decode import TrainingDecoder
    from raysys.stream.read import training_stream

    _connect(work)
    shards = shards_of(work.remote_uri if remote and work.remote_uri else work.shards_uri)
    stream = training_stream(
        shards,
        TrainingDecoder(work.encoder_uri, work.image, work.text, _NO_AUGMENTATION, (), _SEED, scaled),
        work.stream,
        Concurrency(decoders=work.workers, readers=work.num_readers),
        seed=_SEED,
        start=0,
        stop=work.num_batches * work.batch_size,
        rows_per_block=rows_per_block(shards, work.stream, batch_size=work.batch_size, workers=1),
    )
    for batch in stream.iter_batches(batch_size=work.batch_size, batch_format="numpy"):
        yield batch[PIXELS], batch[TOKENS]


def read_webloader(work: StreamWork) -> Iterator[ReadyBatch]:
    """webdataset as its documentation recommends: workers decode and collate; each reads its own shards."""
    import torch
    import webdataset

    tokenizer = load_tokenizer(Path(work.encoder_uri))

    def decode(sample: Mapping[str, bytes]) -> tuple[ndarray, str]:
        return to_pixels(decode_image(sample["jpg"]), work.image), json.loads(sample["json"])[TITLE]

    def collate(samples: Sequence[tuple[ndarray, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, titles = zip(*samples, strict=True)
        # Tensors travel through shared memory; arrays would be copied through a pipe.
        return torch.from_numpy(np.stack(pixels)), torch.from_numpy(to_tokens(tokenizer, titles, work.text))

    dataset = (
        webdataset.WebDataset(_tars(work), shardshuffle=False)
        .repeat()
        .map(decode)
        .batched(work.batch_size, collation_fn=collate, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=work.workers,
        multiprocessing_context="fork",  # DataLoader's default on Linux, but not in a spawned process
    )
    yield from itertools.islice(loader, work.num_batches)


def read_ray_data(work: StreamWork) -> Iterator[ReadyBatch]:
    """Ray Data's own reader with the same number of decoders and blocks of about one batch."""
    import ray.data

    from raysys.stream.read import prepare_context

    _connect(work)
    prepare_context()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = work.batch_size * work.image.size_px**2 * 3
    num_photos = work.num_batches * work.batch_size
    tars = _tars(work)
    photos_per_epoch = sum(shard.num_items for shard in shards_of(work.shards_uri))
    rows = ray.data.read_webdataset(
        tars * -(-num_photos // photos_per_epoch), decoder=None, concurrency=work.num_readers
    )
    # Without the limit it would continue to read and decode while other contenders are measured.
    stream = rows.limit(num_photos).map_batches(
        _RayDataDecoder,
        fn_constructor_args=(work,),
        batch_size=work.batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=work.workers),
    )
    batches = stream.iter_batches(batch_size=work.batch_size, batch_format="numpy", drop_last=True)
    for batch in batches:
        yield batch[PIXELS], batch[TOKENS]


def _connect(work: StreamWork) -> None:
    """Connect to Ray. Raises: InputError if readers and decoders do not fit the cluster."""
    from raysys.cluster.nodes import wait_for_nodes

    session.connect(work.ray)
    processes = [
        Demand(work.num_readers, "reader", "stream.read_concurrency", {"CPU": 1.0}),
        Demand(work.workers, "decoder", "bench.workers", {"CPU": 1.0}),
    ]
    wait_for_nodes("bench", lambda _: processes, may_grow=session.may_grow(work.ray))


class _RayDataDecoder:
    def __init__(self, work: StreamWork) -> None:
        self._work = work
        self._tokenizer = load_tokenizer(Path(work.encoder_uri))

    def __call__(self, batch: dict[str, ndarray]) -> dict[str, ndarray]:
        titles = [json.loads(text)[TITLE] for text in batch["json"]]
        pixels = [to_pixels(decode_image(photo), self._work.image) for photo in batch["jpg"]]
        return {PIXELS: np.stack(pixels), TOKENS: to_tokens(self._tokenizer, titles, self._work.text)}


def decode_in_memory(work: StreamWork) -> Iterator[ReadyBatch]:
    """The limit: each worker decodes bytes in memory in a loop; it reads nothing and returns nothing."""
    items = [item for shard in shards_of(work.shards_uri) for item in read_shard(shard)]
    tokenizer = load_tokenizer(Path(work.encoder_uri))
    fork = multiprocessing.get_context("fork")  # forked workers share the bytes; nothing is sent to them
    finished = fork.SimpleQueue()

    def decode_batches(worker: int) -> None:
        own_items = itertools.cycle(items[worker :: work.workers])
        for _ in range(work.num_batches // work.workers):
            batch = list(itertools.islice(own_items, work.batch_size))
            np.stack([to_pixels(decode_image(item.image), work.image) for item in batch])
            to_tokens(tokenizer, [item.title for item in batch], work.text)
            finished.put(None)

    processes = [fork.Process(target=decode_batches, args=(worker,)) for worker in range(work.workers)]
    for process in processes:
        process.start()
    for _ in range(work.num_batches):
        yield finished.get()
    for process in processes:
        process.join()


def _contenders(work: StreamWork) -> dict[str, Callable[[], Measurement]]:
    """All contenders with full decoding, and raysys also with the scaled decoding that training uses."""
    contenders: dict[str, Callable[[], Measurement]] = {
        RAYSYS: partial(measure_rate, read_raysys, work),
        RAYSYS_SCALED: partial(measure_rate, partial(read_raysys, scaled=True), work),
        BASELINE: partial(measure_rate, read_webloader, work),
        RAY_DATA: partial(measure_rate, read_ray_data, work),
        LIMIT: partial(measure_rate, decode_in_memory, work),
    }
    if work.remote_uri is not None:
        contenders[RAYSYS_REMOTE] = partial(measure_rate, partial(read_raysys, remote=True), work)
    return contenders


def measure_rate(reader: Reader, work: StreamWork) -> Measurement:
    """The rate after the warm-up; the time to the first batch is a separate metric."""
    started = time.monotonic()
    ready_at = []
    for batch in reader(work):
        ready_at.append(time.monotonic())
        _check_complete(batch, work)
    assert len(ready_at) == work.num_batches, f"{len(ready_at)} batches of {work.num_batches}"
    rate = work.num_measured * work.batch_size / (ready_at[-1] - ready_at[work.num_warm_up - 1])
    return Measurement(rate, {"first_batch_s": ready_at[0] - started})


def _warm_up_batches(measured: int) -> int:
    """Warm-up batches per worker: batches decoded while the first one was on its way arrive in a burst."""
    return 3 + measured // 2


def _check_complete(batch: ReadyBatch, work: StreamWork) -> None:
    if batch is not None:
        pixels, tokens = batch
        size = work.image.size_px
        assert tuple(pixels.shape) == (work.batch_size, size, size, 3), pixels.shape
        assert str(pixels.dtype).endswith("uint8"), pixels.dtype
        assert len(tokens) == work.batch_size, tokens.shape


def _prepare(folder: Path, megapixels: float, image: ImagePreprocessing) -> tuple[str, int, float]:
    """Write a ShardSet of photos of one size; return its URI, mean bytes per photo and decode time in s."""
    num_distinct = int(max(4, min(32, _DISTINCT_PIXELS / (megapixels * 1e6))))
    probes = [photos.photo_like(item, megapixels, _SEED) for item in generate_items(4, _SEED)]
    started = time.perf_counter()
    for photo in probes:
        to_pixels(decode_image(photo), image)
    decode_s = (time.perf_counter() - started) / len(probes)
    photo_bytes = sum(map(len, probes)) // len(probes)
    num_items = max(_MIN_SHARDS * _MIN_ITEMS_PER_SHARD, min(_MAX_ITEMS, _SET_BYTES // photo_bytes))
    per_shard = max(_MIN_ITEMS_PER_SHARD, min(_SHARD_BYTES // photo_bytes, num_items // _MIN_SHARDS))
    uri = photos.make_shard_set(
        folder,
        megapixels,
        num_items=num_items,
        num_distinct=num_distinct,
        items_per_shard=per_shard,
        seed=_SEED,
    )
    return uri, photo_bytes, decode_s


def _upload(shards_uri: str, remote_root: str | None) -> str | None:
    """Copy a ShardSet below `remote_root` and return its URI there."""
    if remote_root is None:
        return None
    local = storage.local_path(shards_uri)
    remote_uri = storage.join(remote_root, local.name)
    storage.delete(remote_uri)
    storage.upload_folder(local, remote_uri)
    return remote_uri


def _tars(work: StreamWork) -> list[str]:
    return [str(storage.local_path(shard.uri)) for shard in shards_of(work.shards_uri)]
