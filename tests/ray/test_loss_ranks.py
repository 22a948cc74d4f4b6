"""Several workers take the same first step on a global batch as a single worker, also with uneven parts.

The workers are processes that communicate over gloo, as in a training on CPUs: no Ray, but too slow for a unit
test.
"""

from __future__ import annotations

import dataclasses
import multiprocessing

import pytest
import torch
import torch.multiprocessing

from tests.ray.ranks import (
    MICRO_BATCHES,
    PARALLEL,
    POLICIES,
    TRAININGS,
    FirstStep,
    Training,
    all_trainings,
    first_steps,
    run_rank,
)
from tests.unit.train.small_model import build_small_model

WORLD_SIZES = (2, 3, 4)


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, tuple[dict[str, FirstStep], dict[str, Training]]]:
    """World size -> first steps and trainings of its ranks; 1 is this process."""
    folder = tmp_path_factory.mktemp("ranks")
    build_small_model(folder / "tiny")
    # The ranks are forked from a server that has imported everything: with `spawn` each import takes seconds.
    multiprocessing.set_forkserver_preload(["tests.ray.ranks"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]  # torch neither types nor exports it
        run_rank, args=(str(folder), WORLD_SIZES), nprocs=max(WORLD_SIZES), start_method="forkserver"
    )
    of_groups = {
        world_size: torch.load(folder / f"steps-{world_size}.pt", weights_only=False)
        for world_size in WORLD_SIZES
    }
    single = first_steps(folder, rank=0, world_size=1), all_trainings(folder, rank=0, world_size=1)
    return {1: single, **of_groups}


@pytest.fixture(scope="module")
def steps(
    results: dict[int, tuple[dict[str, FirstStep], dict[str, Training]]],
) -> dict[int, dict[str, FirstStep]]:
    """World size -> the first steps."""
    return {world_size: steps for world_size, (steps, _) in results.items()}


@pytest.fixture(scope="module")
def trainings(
    results: dict[int, tuple[dict[str, FirstStep], dict[str, Training]]],
) -> dict[int, dict[str, Training]]:
    """World size -> the trainings."""
    return {world_size: trainings for world_size, (_, trainings) in results.items()}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_loss_and_gradients_of_a_group_equal_those_of_one_worker(
    steps: dict[int, dict[str, FirstStep]], world_size: int, policy: str
) -> None:
    group, single = (steps[size][f"loss {policy}"] for size in (world_size, 1))
    torch.testing.assert_close(group.loss, single.loss, rtol=1e-13, atol=0)
    assert group.gradients.keys() == single.gradients.keys()
    for input_name, gradient in single.gradients.items():
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(group.gradients[input_name], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_of_a_ddp_model_equals_that_of_one_worker(
    steps: dict[int, dict[str, FirstStep]], world_size: int, policy: str, micro_batch_size: int | None
) -> None:
    require_equal(steps[world_size][f"model {policy} {micro_batch_size}"], steps[1][f"model {policy} None"])


@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_of_a_sharded_model_equals_that_of_one_worker(
    steps: dict[int, dict[str, FirstStep]], world_size: int, micro_batch_size: int | None
) -> None:
    require_equal(steps[world_size][f"fsdp {micro_batch_size}"], steps[1]["model default None"])


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_of_distillation_equals_that_of_one_worker(
    steps: dict[int, dict[str, FirstStep]], world_size: int, micro_batch_size: int | None, parallel: str
) -> None:
    single = steps[1]["distil ddp None"]
    assert float(single.loss) != pytest.approx(float(steps[1]["model default None"].loss))
    require_equal(steps[world_size][f"distil {parallel} {micro_batch_size}"], single)


@pytest.mark.parametrize("micro_batch_size", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_first_step_with_a_teacher_equals_that_of_one_worker(
    steps: dict[int, dict[str, FirstStep]], world_size: int, micro_batch_size: int | None
) -> None:
    group, single = steps[world_size][f"teacher {micro_batch_size}"], steps[1]["teacher None"]
    assert float(single.loss) != pytest.approx(float(steps[1]["model default None"].loss))
    torch.testing.assert_close(group.gradients["head"], single.gradients["head"])
    require_equal(*(without_head(step) for step in (group, single)))


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_training_of_a_group_has_the_losses_of_one_worker(
    trainings: dict[int, dict[str, Training]], world_size: int, training: str
) -> None:
    group, single = trainings[world_size][training], trainings[1][training]
    rounding = 2e-3 if "bf16" in training else 1e-4
    assert group.losses == pytest.approx(single.losses, rel=rounding)
    assert group.losses[2] < group.losses[0]
    assert group.weights.keys() == single.weights.keys()
    assert all(value.shape == single.weights[name].shape for name, value in group.weights.items())


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_bf16_is_the_same_arithmetic_in_ddp_fsdp_and_one_process(
    trainings: dict[int, dict[str, Training]], world_size: int
) -> None:
    ddp, fsdp = (trainings[world_size][training].losses for training in ("ddp bf16", "fsdp bf16"))
    assert fsdp == pytest.approx(ddp, rel=1e-6)
    first = trainings[1]["ddp bf16"].losses[0]
    assert ddp[0] == pytest.approx(first, rel=1e-6)
    assert first != pytest.approx(trainings[1]["ddp"].losses[0], rel=1e-5)  # in float32


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_restored_training_continues_bit_for_bit(
    trainings: dict[int, dict[str, Training]], world_size: int, training: str
) -> None:
    result = trainings[world_size][training]
    assert result.restored_losses == result.losses[2:]
    assert all(torch.equal(result.restored_weights[name], value) for name, value in result.weights.items())


def without_head(step: FirstStep) -> FirstStep:
    """The towers' gradients, whose norm the step has."""
    towers = {name: gradient for name, gradient in step.gradients.items() if name != "head"}
    return dataclasses.replace(step, gradients=towers)


def require_equal(group: FirstStep, single: FirstStep) -> None:
    """The same loss and gradients up to rounding."""
    assert float(group.loss) == pytest.approx(float(single.loss), rel=1e-6)
    assert group.gradients.keys() == single.gradients.keys()
    norm = torch.stack([gradient.norm() for gradient in single.gradients.values()]).norm()
    assert group.norm is not None
    assert float(group.norm) == pytest.approx(float(norm), rel=1e-5)
    for name, gradient in single.gradients.items():
        difference = (group.gradients[name] - gradient).norm()
        # The bias of a key shifts all logits of a query equally: its exact gradient is 0, the rest is rounding.
        size = norm if name.endswith("k_proj.bias") else gradient.norm()
        assert float(difference / size) < 1e-5, name


def test_policies_give_different_losses(steps: dict[int, dict[str, FirstStep]]) -> None:
    losses = {round(float(steps[1][f"loss {policy}"].loss), 6) for policy in POLICIES}
    assert len(losses) == len(POLICIES)
