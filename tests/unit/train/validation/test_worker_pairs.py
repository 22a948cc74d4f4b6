"""Pairs that a worker embeds in training: equal to the exported bundle, and without a trace in the training.

Groups of workers: `tests/ray/test_validation_ranks.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysys.config.schema import LoraConfig
from raysys.encoder.siglip import SiglipEncoder, load_model
from raysys.encoder.text import TextPreprocessing
from raysys.evaluate.validation import Validation
from raysys.train.model import TrainState
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import train_step
from raysys.train.validation.worker_pairs import WorkerPairs
from tests.factories import TINY
from tests.unit.train.small_model import (
    build_small_model,
    exported_weights,
    forget_compiled,
    small_batch,
    small_job,
    small_section,
    small_state,
    write_validation_pairs,
)

CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "averaged": {"ema_decay": 0.5, "activation_checkpointing": "full"},
    "lora": {"lora": LoraConfig(rank=2), "ema_decay": 0.5, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    return write_validation_pairs(tmp_path_factory.mktemp("val"))


def pairs_of(
    folder: Path, start: Path, validation: Validation, state: TrainState, **changes: Any
) -> WorkerPairs:
    job = small_job(folder, start, small_section(**changes), validation)
    return WorkerPairs(validation.pairs, job, state.accelerator)


@pytest.mark.parametrize("name", CHANGES)
def test_vectors_equal_those_of_the_exported_bundle(
    start: Path, validation: Validation, tmp_path: Path, name: str
) -> None:
    section = small_section(**CHANGES[name])
    state = small_state(start, section)
    for seed in range(3):
        train_step(state, small_batch(seed), section)
    with state.exported_weights():
        embedded = pairs_of(tmp_path, start, validation, state, micro_batch_size=2).embed(state.towers)
    assert embedded is not None
    model = load_model(start)
    model.load_state_dict(exported_weights(state.state_dict()))
    for path in start.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(tmp_path)
    encoder = SiglipEncoder(tmp_path, space_id="", text=TextPreprocessing(TINY.max_length))
    photos, titles = zip(*validation.pairs.read(0, 9), strict=True)
    assert embedded.photos.shape == (9, 16)
    np.testing.assert_allclose(embedded.photos, encoder.embed_photos(photos), atol=1e-6)
    np.testing.assert_allclose(embedded.titles, encoder.embed_titles(titles), atol=1e-6)
    assert len(set(embedded.title_keys.tolist())) == len(set(titles)) == 6


@pytest.mark.parametrize("name", CHANGES)
def test_training_continues_bit_for_bit_after_a_validation(
    start: Path, validation: Validation, tmp_path: Path, name: str
) -> None:
    section = small_section(**CHANGES[name])
    plain, validated = (small_state(start, section) for _ in range(2))
    validated.model.vision_model.train()  # some modules only: each must get its own mode back
    modes = {name: module.training for name, module in validated.towers.named_modules()}
    pairs = pairs_of(tmp_path, start, validation, validated)
    for seed in range(3):
        rng = torch.get_rng_state()
        with validated.exported_weights():
            pairs.embed(validated.towers)
        assert torch.equal(torch.get_rng_state(), rng)
        losses = {
            train_step(state, small_batch(seed), section).metrics()["loss"] for state in (plain, validated)
        }
        assert len(losses) == 1
    assert {name: module.training for name, module in validated.towers.named_modules()} == modes
    expected, weights = (exported_weights(state.state_dict()) for state in (plain, validated))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_dropout_is_off(start: Path, validation: Validation, tmp_path: Path) -> None:
    state = small_state(start, small_section())
    pairs = pairs_of(tmp_path, start, validation, state)
    expected = pairs.embed(state.towers)
    state.towers.train()
    for module in state.towers.modules():
        if hasattr(module, "dropout"):
            setattr(module, "dropout", 0.5)  # noqa: B010  # torch types attributes as modules
    embedded = pairs.embed(state.towers)
    assert expected is not None
    assert embedded is not None
    assert torch.equal(embedded.photos, expected.photos)


def test_request_ends_the_embedding_between_micro_batches(
    start: Path, validation: Validation, tmp_path: Path
) -> None:
    state = small_state(start, small_section())
    pairs = pairs_of(tmp_path, start, validation, state, micro_batch_size=2)
    calls: list[int] = []
    state.towers.register_forward_hook(lambda *_: calls.append(1))
    assert pairs.embed(state.towers, lambda: len(calls) == 3) is None
    assert len(calls) == 3  # of five


def test_validation_compiles_nothing(start: Path, validation: Validation, tmp_path: Path) -> None:
    compiled: list[int] = []
    forget_compiled()

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(1)
        return graph.forward

    state = small_state(start, small_section())
    expected = pairs_of(tmp_path, start, validation, state).embed(state.towers)
    assert isinstance(state.towers, DualEncoder)
    state.towers.compile_towers(backend=backend)  # type: ignore[arg-type]  # torch takes functions, too
    pairs = pairs_of(tmp_path, start, validation, state, compile=True)
    embedded = pairs.embed(state.towers)
    assert not compiled
    assert expected is not None
    assert embedded is not None
    assert torch.equal(embedded.photos, expected.photos)
    train_step(state, small_batch(), small_section())
    num_compiled = len(compiled)
    assert num_compiled
    pairs.embed(state.towers)
    assert len(compiled) == num_compiled
