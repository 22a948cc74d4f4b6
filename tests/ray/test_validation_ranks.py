"""Workers validate together: the metrics of one worker and of the exported bundle, and no trace in the training.

The workers are processes that communicate over gloo, as in a training on CPUs: no Ray, but too slow for a unit
test.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from raysys.encoder.siglip import SiglipEncoder, load_model
from raysys.encoder.text import TextPreprocessing
from tests.factories import TINY
from tests.ray.validating_ranks import (
    NUM_STEPS,
    TRAININGS,
    Validated,
    all_validated,
    cosine_validation,
    run_rank,
)
from tests.unit.train.small_model import build_small_model, plain_embeddings

WORLD_SIZES = (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    build_small_model(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[int, list[dict[str, Validated]]]:
    """World size -> the trainings of each of its ranks; 1 is this process."""
    # The ranks are forked from a server that has imported everything: with `spawn` each import takes seconds.
    multiprocessing.set_forkserver_preload(["tests.ray.validating_ranks"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]  # torch neither types nor exports it
        run_rank, args=(str(folder), WORLD_SIZES), nprocs=max(WORLD_SIZES), start_method="forkserver"
    )
    of_groups = {
        world_size: [
            torch.load(folder / f"ranks-{world_size}-{rank}.pt", weights_only=False)
            for rank in range(world_size)
        ]
        for world_size in WORLD_SIZES
    }
    return {1: [all_validated(folder, rank=0, world_size=1)], **of_groups}


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_training_with_validations_is_that_without_bit_for_bit(
    results: dict[int, list[dict[str, Validated]]], world_size: int, training: str
) -> None:
    for rank in results[world_size]:
        result = rank[training]
        assert result.losses == result.plain_losses
        assert all(torch.equal(result.weights[name], value) for name, value in result.plain_weights.items())
    assert results[world_size][0][training].weights


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_all_ranks_have_the_metrics_of_one_worker(
    results: dict[int, list[dict[str, Validated]]], world_size: int, training: str
) -> None:
    single, ranks = results[1][0][training], [rank[training] for rank in results[world_size]]
    assert len(ranks) == world_size
    assert all(rank.metrics == ranks[0].metrics for rank in ranks)  # bit for bit
    assert all(rank.has_stopped == ranks[0].has_stopped for rank in ranks)
    # Those of equal weights: training rounds differently on several workers.
    assert ranks[0].metrics[0] == pytest.approx(single.metrics[0], abs=1e-6)
    scores = [metrics["score"] for metrics in ranks[0].metrics]
    assert len(scores) == NUM_STEPS + 1
    assert max(scores) - min(scores) > 1e-3


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_metrics_are_those_of_the_exported_weights(
    results: dict[int, list[dict[str, Validated]]],
    folder: Path,
    tmp_path: Path,
    world_size: int,
    training: str,
) -> None:
    result = results[world_size][0][training]
    model = load_model(folder / "tiny")
    model.load_state_dict(result.weights)
    for path in (folder / "tiny").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(tmp_path)
    encoder = SiglipEncoder(tmp_path, space_id="", text=TextPreprocessing(TINY.max_length))
    validation = cosine_validation(tmp_path / "val")
    expected = validation.metrics(plain_embeddings(encoder, validation.pairs))
    assert result.metrics[-1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_points_end_at_start_and_best_checkpoint_and_are_reproducible(
    results: dict[int, list[dict[str, Validated]]], world_size: int, training: str
) -> None:
    result = results[world_size][0][training]
    assert result.points is not None
    assert result.alone == result.points
    first, middle, last = result.points
    best = max(result.metrics[1:], key=lambda metrics: metrics["score"])
    assert first.metrics == pytest.approx(result.metrics[0], abs=1e-6)
    assert last.metrics == pytest.approx(best, abs=1e-6)
    assert len({point.metrics["score"] for point in (first, middle, last)}) == 3
    single = results[1][0][training].points
    assert single is not None
    assert first.retention == pytest.approx(single[0].retention, abs=1e-6)
