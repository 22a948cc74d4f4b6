"""From tars to ready batches: pixels at the model's size and token ids, in images a second.

Everybody gets the same tars and decodes with the same functions. The peer is webdataset's own loader, the
limit is those functions in a loop over bytes in memory. No contender augments; ours alone shuffles.
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
from raysys.bench.measure import Case, Finding, Trial
from raysys.cluster import session
from raysys.columns import PIXELS, TITLE, TOKENS
from raysys.config import Config
from raysys.config.schema import AugmentConfig, RayConfig, StreamConfig
from raysys.encoder import siglip, start
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, to_pixels
from raysys.encoder.text import TextPreprocessing, to_tokens
from raysys.shards.reader import read_shard, shards_of
from raysys.synth import generate_items

OURS, OURS_SCALED = "raysys", "raysys, scaled decode"
PEER, RAY, LIMIT = "webdataset.WebLoader", "ray.data.read_webdataset", "decode loop in memory"
_SEED = 7
_UNCHANGED = AugmentConfig(crop_min_area=1.0, flip_probability=0.0, brightness=0.0)
_SHARD_BYTES = 32 << 20
_SET_BYTES = 256 << 20
_MAX_ITEMS, _MIN_ITEMS_PER_SHARD, _SHARDS_AT_LEAST = 4096, 4, 8
_DISTINCT_PIXELS = 48e6
_BATCH_MEGAPIXELS = 64.0
_MEASURED_AT_LEAST = 4  # batches a worker
_TITLES = 2000

# What came to be ready: pixels uint8 [batch, size, size, 3] and token ids [batch, ..]; None where neither
# leaves the process that made them.
Ready: TypeAlias = tuple[Any, Any] | None


@dataclass(frozen=True)
class Feed:
    """What every contender is given, and how much of it to make ready."""

    shards_uri: str
    encoder_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    workers: int
    batch_size: int
    num_warm_up: int  # batches; like the next, a multiple of `workers`
    num_measured: int
    stream: StreamConfig
    ray: RayConfig

    @property
    def num_batches(self) -> int:
        return self.num_warm_up + self.num_measured


Contender: TypeAlias = Callable[[Feed], Iterator[Ready]]


def cases(config: Config, folder: Path) -> Iterator[Case]:
    """Every size of photo with every number of workers."""
    encoder = folder / "encoder"
    start.fill_start(config.encoder, lambda: [item.title for item in generate_items(_TITLES, _SEED)])(encoder)
    image, text = siglip.image_preprocessing_of(encoder), start.text_preprocessing(config.encoder)
    for megapixels in config.bench.megapixels:
        shards_uri, photo_bytes, decode_s = _prepare(folder / f"{megapixels}", megapixels, image)
        batch_size = config.bench.batch_size
        while batch_size > 1 and batch_size * megapixels > _BATCH_MEGAPIXELS:
            batch_size //= 2
        measured = max(_MEASURED_AT_LEAST, round(config.bench.seconds / (batch_size * decode_s)))
        for workers in config.bench.workers:
            feed = Feed(
                shards_uri,
                str(encoder),
                image,
                text,
                workers,
                batch_size,
                _warm_up(measured) * workers,
                measured * workers,
                config.stream.model_copy(update={"decode_concurrency": workers}),
                config.ray,
            )
            facts = {
                "megapixels": megapixels,
                "workers": workers,
                "batch_size": batch_size,
                "images_measured": measured * workers * batch_size,
                "photo_bytes": photo_bytes,
            }
            name = f"{megapixels:g} Mpx, {workers} worker{'s' if workers > 1 else ''}"
            yield Case(name, "images/s", _contenders(feed), PEER, LIMIT, facts)


def conclusions(findings: Sequence[Finding]) -> list[str]:
    """Where ours stands, case by case."""
    return [
        f"{finding.case}: {name} is {standing.to_peer:.2f} x {finding.peer}, "
        f"{standing.to_limit:.2f} of the limit"
        for finding in findings
        for name, standing in finding.contenders.items()
        if name in (OURS, OURS_SCALED)
    ]


def read_ours(feed: Feed, *, scaled: bool = False) -> Iterator[Ready]:
    """raysys: the very stream that training reads."""
    from raysys.stream.blocks import rows_per_block
    from raysys.stream.decode import TrainingDecoder
    from raysys.stream.read import training_stream

    session.connect(feed.ray)
    shards = shards_of(feed.shards_uri)
    stream = training_stream(
        shards,
        TrainingDecoder(feed.encoder_uri, feed.image, feed.text, _UNCHANGED, (), _SEED, scaled),
        feed.stream,
        seed=_SEED,
        start=0,
        stop=feed.num_batches * feed.batch_size,
        rows_per_block=rows_per_block(shards, feed.stream, batch_size=feed.batch_size, workers=1),
    )
    for batch in stream.iter_batches(batch_size=feed.batch_size, batch_format="numpy"):
        yield batch[PIXELS], batch[TOKENS]


def read_webloader(feed: Feed) -> Iterator[Ready]:
    """webdataset as its documentation has it: a worker decodes and collates, shards dealt to workers."""
    import torch
    import webdataset

    tokenizer = load_tokenizer(Path(feed.encoder_uri))

    def decode(sample: Mapping[str, bytes]) -> tuple[ndarray, str]:
        return to_pixels(decode_image(sample["jpg"]), feed.image), json.loads(sample["json"])[TITLE]

    def collate(samples: Sequence[tuple[ndarray, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, titles = zip(*samples, strict=True)
        # Tensors, for they travel through shared memory; arrays would be copied through a pipe.
        return torch.from_numpy(np.stack(pixels)), torch.from_numpy(to_tokens(tokenizer, titles, feed.text))

    dataset = (
        webdataset.WebDataset(_tars(feed), shardshuffle=False)
        .repeat()
        .map(decode)
        .batched(feed.batch_size, collation_fn=collate, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=feed.workers,
        multiprocessing_context="fork",  # what DataLoader does on Linux, but not in a spawned process
    )
    yield from itertools.islice(loader, feed.num_batches)


def read_ray(feed: Feed) -> Iterator[Ready]:
    """Ray Data's own reader, decoding in as many actors, with blocks of about a batch so that they flow."""
    import ray.data

    from raysys.stream.read import prepare_context

    session.connect(feed.ray)
    prepare_context()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = feed.batch_size * feed.image.size_px**2 * 3
    num_images = feed.num_batches * feed.batch_size
    tars = _tars(feed)
    per_pass = sum(shard.num_items for shard in shards_of(feed.shards_uri))
    rows = ray.data.read_webdataset(
        tars * -(-num_images // per_pass), decoder=None, concurrency=feed.stream.read_concurrency
    )
    # Without the limit it would go on reading and decoding while others have their turn.
    stream = rows.limit(num_images).map_batches(
        _RayDecoder,
        fn_constructor_args=(feed,),
        batch_size=feed.batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=feed.workers),
    )
    batches = stream.iter_batches(batch_size=feed.batch_size, batch_format="numpy", drop_last=True)
    for batch in batches:
        yield batch[PIXELS], batch[TOKENS]


def decode_in_memory(feed: Feed) -> Iterator[Ready]:
    """The limit: a loop in each worker over bytes that it has; nothing is read, nothing is handed over."""
    stored = [found.item for shard in shards_of(feed.shards_uri) for found in read_shard(shard)]
    tokenizer = load_tokenizer(Path(feed.encoder_uri))
    fork = multiprocessing.get_context("fork")  # the bytes are there; nothing has to be sent
    done = fork.SimpleQueue()

    def work(worker: int) -> None:
        mine = itertools.cycle(stored[worker :: feed.workers])
        for _ in range(feed.num_batches // feed.workers):
            items = list(itertools.islice(mine, feed.batch_size))
            np.stack([to_pixels(decode_image(item.image), feed.image) for item in items])
            to_tokens(tokenizer, [item.title for item in items], feed.text)
            done.put(None)

    workers = [fork.Process(target=work, args=(number,)) for number in range(feed.workers)]
    for process in workers:
        process.start()
    for _ in range(feed.num_batches):
        yield done.get()
    for process in workers:
        process.join()


class _RayDecoder:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._tokenizer = load_tokenizer(Path(feed.encoder_uri))

    def __call__(self, batch: dict[str, ndarray]) -> dict[str, ndarray]:
        titles = [json.loads(said)[TITLE] for said in batch["json"]]
        pixels = [to_pixels(decode_image(photo), self._feed.image) for photo in batch["jpg"]]
        return {PIXELS: np.stack(pixels), TOKENS: to_tokens(self._tokenizer, titles, self._feed.text)}


def _contenders(feed: Feed) -> dict[str, Callable[[], Trial]]:
    """All with the whole decode, and ours with the one that training uses."""
    contenders: dict[str, Callable[[], Trial]] = {
        OURS: partial(_time, read_ours, feed),
        OURS_SCALED: partial(_time, partial(read_ours, scaled=True), feed),
        PEER: partial(_time, read_webloader, feed),
        RAY: partial(_time, read_ray, feed),
        LIMIT: partial(_time, decode_in_memory, feed),
    }
    return contenders


def _time(contender: Contender, feed: Feed) -> Trial:
    """The rate behind the warm-up, to the last batch; how long the first batch took stands apart."""
    started = time.monotonic()
    ready_at = []
    for ready in contender(feed):
        ready_at.append(time.monotonic())
        _require_whole(ready, feed)
    assert len(ready_at) == feed.num_batches, f"{len(ready_at)} batches of {feed.num_batches}"
    rate = feed.num_measured * feed.batch_size / (ready_at[-1] - ready_at[feed.num_warm_up - 1])
    return Trial(rate, {"first_batch_s": ready_at[0] - started})


def _warm_up(measured: int) -> int:
    """Batches a worker that do not count: those made while the first was on its way come in a burst."""
    return 3 + measured // 2


def _require_whole(ready: Ready, feed: Feed) -> None:
    if ready is not None:
        pixels, tokens = ready
        size = feed.image.size_px
        assert tuple(pixels.shape) == (feed.batch_size, size, size, 3), pixels.shape
        assert str(pixels.dtype).endswith("uint8"), pixels.dtype
        assert len(tokens) == feed.batch_size, tokens.shape


def _prepare(folder: Path, megapixels: float, image: ImagePreprocessing) -> tuple[str, int, float]:
    """A ShardSet of photos of one size; the mean size of a photo, and how long one takes to decode."""
    distinct = int(max(4, min(32, _DISTINCT_PIXELS / (megapixels * 1e6))))
    probe = [photos.photo_like(item, megapixels, _SEED) for item in generate_items(4, _SEED)]
    began = time.perf_counter()
    for photo in probe:
        to_pixels(decode_image(photo), image)
    decode_s = (time.perf_counter() - began) / len(probe)
    photo_bytes = sum(map(len, probe)) // len(probe)
    num_items = max(_SHARDS_AT_LEAST * _MIN_ITEMS_PER_SHARD, min(_MAX_ITEMS, _SET_BYTES // photo_bytes))
    per_shard = max(_MIN_ITEMS_PER_SHARD, min(_SHARD_BYTES // photo_bytes, num_items // _SHARDS_AT_LEAST))
    uri = photos.make_shard_set(
        folder, megapixels, num_items=num_items, distinct=distinct, items_per_shard=per_shard, seed=_SEED
    )
    return uri, photo_bytes, decode_s


def _tars(feed: Feed) -> list[str]:
    return [str(storage.local_path(shard.uri)) for shard in shards_of(feed.shards_uri)]
