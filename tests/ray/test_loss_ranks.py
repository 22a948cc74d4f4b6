"""Several workers and one worker take the same first step on the same global batch, also with uneven shares.

Real processes that talk over gloo, as a training on CPUs does; no Ray, but too slow for a unit test.
"""

from __future__ import annotations

import multiprocessing

import pytest
import torch
import torch.multiprocessing

from raysys.config.schema import TinyConfig
from raysys.encoder.tiny import build_tiny
from tests.ray.ranks import (
    EXCHANGES,
    HELD_NEAR,
    MICRO_BATCHES,
    TRAINED,
    WAYS,
    Step,
    Trained,
    all_steps,
    all_trained,
    run_rank,
)

WORLD_SIZES = (2, 3, 4)


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, tuple[dict[str, Step], dict[str, Trained]]]:
    """World size -> what its ranks did together; 1 is this process alone."""
    folder = tmp_path_factory.mktemp("ranks")
    size = TinyConfig(
        image_size_px=16,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        text_num_layers=1,
        vocab_size=60,
        max_length=6,
    )
    titles = [f"{colour} {what}" for colour in ("red", "green", "blue") for what in ("dress", "cup", "shoe")]
    build_tiny(folder / "tiny", titles * 3, size, seed=7)
    # A server that has imported everything forks the ranks: with `spawn` each of them spends seconds on it.
    multiprocessing.set_forkserver_preload(["tests.ray.ranks"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]  # torch neither types nor exports it
        run_rank, args=(str(folder), WORLD_SIZES), nprocs=max(WORLD_SIZES), start_method="forkserver"
    )
    together = {
        world_size: torch.load(folder / f"steps-{world_size}.pt", weights_only=False)
        for world_size in WORLD_SIZES
    }
    alone = all_steps(folder, rank=0, world_size=1), all_trained(folder, rank=0, world_size=1)
    return {1: alone, **together}


@pytest.fixture(scope="module")
def steps(outcomes: dict[int, tuple[dict[str, Step], dict[str, Trained]]]) -> dict[int, dict[str, Step]]:
    """World size -> the first steps."""
    return {world_size: steps for world_size, (steps, _) in outcomes.items()}


@pytest.fixture(scope="module")
def trained(
    outcomes: dict[int, tuple[dict[str, Step], dict[str, Trained]]],
) -> dict[int, dict[str, Trained]]:
    """World size -> some steps by the engine."""
    return {world_size: trained for world_size, (_, trained) in outcomes.items()}


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_pure_loss_and_its_gradients_are_those_of_one_worker(
    steps: dict[int, dict[str, Step]], world_size: int, way: str, exchange: str
) -> None:
    name = f"loss {way} {exchange}"
    together, alone = steps[world_size][name], steps[1][name]
    torch.testing.assert_close(together.loss, alone.loss, rtol=1e-13, atol=0)
    assert together.gradients.keys() == alone.gradients.keys()
    for what, gradient in alone.gradients.items():
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(together.gradients[what], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_of_the_model_is_that_of_one_worker(
    steps: dict[int, dict[str, Step]], world_size: int, way: str, micro_batch_size: int | None
) -> None:
    require_equal(steps[world_size][f"model {way} {micro_batch_size}"], steps[1][f"model {way} None"])


@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_of_a_sharded_model_is_that_of_one_worker(
    steps: dict[int, dict[str, Step]], world_size: int, micro_batch_size: int | None
) -> None:
    require_equal(steps[world_size][f"fsdp {micro_batch_size}"], steps[1]["model default None"])


@pytest.mark.parametrize("parallel", HELD_NEAR)
@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_step_near_the_start_is_that_of_one_worker(
    steps: dict[int, dict[str, Step]], world_size: int, micro_batch_size: int | None, parallel: str
) -> None:
    assert float(steps[1]["held ddp None"].loss) != pytest.approx(float(steps[1]["model default None"].loss))
    require_equal(steps[world_size][f"held {parallel} {micro_batch_size}"], steps[1]["held ddp None"])


@pytest.mark.parametrize("how", TRAINED)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_steps_of_the_engine_are_those_of_one_worker(
    trained: dict[int, dict[str, Trained]], world_size: int, how: str
) -> None:
    together, alone = trained[world_size][how], trained[1][how]
    rounding = 1e-2 if "bf16" in how else 1e-4
    assert together.losses == pytest.approx(alone.losses, rel=rounding)
    assert together.losses[2] < together.losses[0]
    assert together.weights.keys() == alone.weights.keys()
    assert all(value.shape == alone.weights[name].shape for name, value in together.weights.items())


@pytest.mark.parametrize("how", TRAINED)
@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_workers_go_on_bit_for_bit_from_their_state(
    trained: dict[int, dict[str, Trained]], world_size: int, how: str
) -> None:
    found = trained[world_size][how]
    assert found.losses_again == found.losses[2:]
    assert all(torch.equal(found.weights_again[name], value) for name, value in found.weights.items())


def require_equal(together: Step, alone: Step) -> None:
    """The same loss and gradients but for rounding."""
    assert float(together.loss) == pytest.approx(float(alone.loss), rel=1e-6)
    assert together.gradients.keys() == alone.gradients.keys()
    whole = torch.stack([gradient.norm() for gradient in alone.gradients.values()]).norm()
    assert together.norm is not None
    assert float(together.norm) == pytest.approx(float(whole), rel=1e-5)
    for name, gradient in alone.gradients.items():
        difference = (together.gradients[name] - gradient).norm()
        # A key's bias moves all logits of a query alike: its gradient is 0, and what is there is rounding.
        size = whole if name.endswith("k_proj.bias") else gradient.norm()
        assert float(difference / size) < 1e-5, name


def test_the_ways_are_different_losses(steps: dict[int, dict[str, Step]]) -> None:
    losses = {round(float(steps[1][f"loss {way} ring"].loss), 6) for way in WAYS}
    assert len(losses) == len(WAYS)
