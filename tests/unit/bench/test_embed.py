"""What `raysys bench embed` embeds, what its contenders report, and its arithmetic."""

from __future__ import annotations

import pytest

from raysys.bench import embed, photos
from raysys.bench.measure import CaseResult, ContenderResult, Spread
from raysys.config.schema import EmbedConfig, RayConfig, StreamConfig
from raysys.encoder.image_encoder import describe_image_encoder
from tests.factories import tiny_bundle


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> embed.EmbedWork:
    folder = tmp_path_factory.mktemp("embed")
    photos.make_shard_set(folder / "shards", 0.01, num_items=24, num_distinct=2, items_per_shard=8, seed=7)
    encoder = describe_image_encoder(tiny_bundle(folder / "encoder", ["red cup", "blue cup"]))
    section = EmbedConfig(batch_size=4)
    shards = str(folder / "shards")
    return embed.EmbedWork(
        folder, shards, encoder, section, StreamConfig(), RayConfig(), num_warm_up=8, num_measured=16
    )


def test_shards_are_repeated_as_other_splits_so_that_no_part_is_overwritten(work: embed.EmbedWork) -> None:
    shards = work.shards()
    assert sum(shard.num_items for shard in shards) >= work.num_photos > 24
    assert len({(shard.split, shard.uri) for shard in shards}) == len(shards)


def test_encoder_alone_reports_a_rate(work: embed.EmbedWork) -> None:
    assert embed.run_encoder_alone(work).rate > 0


def contender_result(rate: float, metrics: dict[str, float]) -> ContenderResult:
    spreads = {name: Spread(value, value, value) for name, value in metrics.items()}
    return ContenderResult(Spread(rate, rate, rate), rate / 80, rate / 100, 1, 0, spreads)


def test_conclusions_state_the_ratios_and_what_decoding_leaves_of_the_limit() -> None:
    cpu = {"cpu_ms": 23.5, "encode_cpu_ms": 20.5, "decode_cpu_ms": 2.0}
    ours = contender_result(90, {**cpu, "encoder_busy": 0.95, "write_ms": 0.1})
    contenders = {
        embed.RAYSYS: ours,
        embed.BASELINE: contender_result(80, {}),
        embed.LIMIT: contender_result(100, {"cpu_ms": 20.0}),
    }
    result = CaseResult("tiny", "photos/s", embed.BASELINE, embed.LIMIT, {"on_gpu": 0.0}, contenders)
    ratios, where, share = embed.conclusions([result])
    assert ratios == f"tiny: {embed.RAYSYS} is 0.90 of the limit and 1.12 x {embed.BASELINE}"
    assert "CPU time of a photo: 20.50 ms in the encoder, 2.00 in decoders, 1.00 in readers" in where
    assert share.endswith("at most 20.00 / 22.00 = 0.91 of the limit")
