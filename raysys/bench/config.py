"""The settings of `raysys bench`: the product's configuration and a section `bench`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from raysys.config import Config
from raysys.config.schema import Fraction, Section

# `--quick`: small settings that check in seconds that a benchmark runs.
QUICK = (
    "bench.rounds=1",
    "bench.seconds=0.2",
    "bench.megapixels=[0.05]",
    "bench.workers=[1]",
    "bench.batch_size=16",
    "ray.num_cpus=3",  # Ray starts one process per CPU; a reader, a decoder and an encoder fit
    "bench.pack_items=[2000]",
    "bench.loss_ranks=[1, 2]",
    "bench.loss_rows=64",
    "bench.scaling_ranks=[1, 2]",
    "bench.scaling_rows=[8]",
    "bench.index_vectors=[25000]",
    "bench.index_dimensions=16",
    "bench.index_queries=50",
    "index.recall_queries=50",
    "bench.train_batch_size=8",
    "bench.train_steps=1",
    "bench.train_warm_up_steps=1",
    "bench.train_megapixels=0.05",
    "bench.embed_seconds=0.5",
    "bench.serve_vectors=2000",
    "bench.serve_seconds=1",
    "bench.serve_warm_up_s=1",
    "bench.serve_max_steps=2",
    "encoder.scratch.image_size_px=64",
)
SeveralInts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
SeveralFloats = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class BenchConfig(Section):
    """What the benchmarks measure, and for how long."""

    rounds: PositiveInt = 3
    """How often each contender is measured."""
    seconds: PositiveFloat = 6.0
    """Approximate length of one measurement of `bench stream`, at the speed of the limit."""
    megapixels: SeveralFloats = (0.05, 0.3, 1.0, 12.0)
    """Photo sizes of `bench stream`."""
    workers: SeveralInts = (1, 2)
    """Numbers of decoding processes of `bench stream`."""
    remote_root: str | None = None
    """A folder on an object store: `bench stream` also reads a copy of the tars from there. Null: it does
    not."""
    batch_size: PositiveInt = 256
    """Batch size of `bench stream`; halved for large photos until a batch has at most 64 megapixels."""
    pack_items: SeveralInts = (10_000, 100_000)
    """Catalogue sizes of `bench pack`, ascending: two sizes separate start-up from time per item."""
    photo_px: PositiveInt = 96
    """Side of the square photos of `bench pack`."""
    loss_ranks: SeveralInts = (1, 2, 4, 8)
    """Numbers of processes of `bench loss`."""
    loss_rows: PositiveInt = 512
    """Pairs per rank of `bench loss`."""
    loss_dimensions: PositiveInt = 512
    index_vectors: SeveralInts = (1_000_000,)
    """Numbers of vectors of `bench index`."""
    index_dimensions: PositiveInt = 128
    index_queries: PositiveInt = 1000
    """Queries of `bench index`, none of them in the index."""
    index_shares: tuple[Fraction, ...] = (0.1, 0.01, 0.001, 0.0001)
    """Shares of the rows that random filters of `bench index` keep."""
    index_region_shares: tuple[Fraction, ...] = (0.1, 0.01)
    """Shares of filters that keep a region: the rows with the lowest first coordinates."""
    index_autofaiss_python: str | None = None
    """The interpreter of an environment with autofaiss; `bench index` gives it the same budget. Null: not
    measured."""
    train_batch_size: PositiveInt = 32
    """Pairs per step of `bench train`; on a GPU with 80 GB, use 512 or more."""
    train_steps: PositiveInt = 5
    """Measured steps per round."""
    train_warm_up_steps: PositiveInt = 2
    train_megapixels: PositiveFloat = 0.3
    """Size of the photos that `bench train` streams."""
    train_compile: bool = True
    """On a GPU, compile the towers of all contenders with torch.compile."""
    embed_megapixels: SeveralFloats = (0.05,)
    """Photo sizes of `bench embed`."""
    embed_seconds: PositiveFloat = 10.0
    """Approximate length of one measurement of `bench embed`, at the speed of the encoder or of decoding."""
    serve_vectors: PositiveInt = 100_000
    """Items of the index that `bench serve` queries."""
    serve_megapixels: PositiveFloat = 0.3
    """Size of the photos that `bench serve` uploads."""
    serve_item_rate: PositiveInt = 20
    """Item queries per second at low load."""
    serve_photo_rate: PositiveInt = 2
    """Photo queries per second at low load."""
    serve_seconds: Annotated[float, Field(ge=1)] = 5.0
    """Length of each step of the load."""
    serve_warm_up_s: Annotated[float, Field(ge=1)] = 2.0
    """Length of the load before the first measured step."""
    serve_growth: Annotated[float, Field(gt=1)] = 1.5
    """Factor from one rate to the next."""
    serve_max_steps: PositiveInt = 20
    """Number of rates after which `bench serve` stops although the service keeps up."""
    serve_connections: PositiveInt = 64
    """Maximum number of requests that wait for their response; a request beyond it is dropped and counted."""
    gpu_hour_price: PositiveFloat = 3.0
    """USD per GPU hour: an assumption, set your own price."""
    gpu_pairs_per_s: PositiveFloat = 1000.0
    """Training speed of one GPU: an assumption until `bench train` has measured yours."""
    gpu_batch_size: PositiveInt = 512
    """Pairs per GPU and step in the plan of `bench scaling`."""
    gpus: SeveralInts = (1, 8, 16, 32, 64, 128, 256)
    """Numbers of GPUs in the plan of `bench scaling`."""
    gpus_per_node: PositiveInt = 8
    node_gb_per_s: PositiveFloat = 450.0
    """Between GPUs of a node, GB/s one way: NVLink 4, from the H100's datasheet (900 GB/s both ways)."""
    network_gb_per_s: PositiveFloat = 50.0
    """Between nodes, GB/s per GPU: 400 Gb/s InfiniBand (NDR)."""
    hop_latency_s: PositiveFloat = 2.0e-5
    """Latency of one message between neighbouring ranks: an assumption."""
    gradient_overlap: Fraction = 0.8
    """Share of the gradient all-reduce that overlaps with the backward pass: an assumption."""
    decoded_per_core_s: PositiveFloat = 100.0
    """Photos that one core decodes per second: an assumption until `bench stream` has measured yours."""
    scaling_ranks: SeveralInts = (1, 2, 4)
    """Numbers of local processes on which `bench scaling` checks its plan."""
    scaling_rows: SeveralInts = (2, 32)
    """Pairs per rank and step in that check: few, so that communication is a large share, and many."""


class BenchRunConfig(Config):
    """The product's configuration plus the section `bench`; only `raysys bench` accepts it."""

    bench: BenchConfig = BenchConfig()
