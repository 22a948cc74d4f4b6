"""What a worker without memory is told to lower."""

from __future__ import annotations

from raysys.config.schema import TrainConfig
from raysys.train.monitor.capacity import micro_batch_size, needs_less


def test_micro_batch_is_the_share_unless_one_is_set() -> None:
    assert micro_batch_size(TrainConfig(batch_size=64, workers=4), workers=4) == 16
    assert micro_batch_size(TrainConfig(batch_size=64, workers=4, micro_batch_size=8), workers=4) == 8
    assert micro_batch_size(TrainConfig(batch_size=64, workers=4), workers=2) == 32  # two nodes are lost


def test_settings_are_named_with_their_values() -> None:
    assert needs_less(TrainConfig(batch_size=64, workers=4), workers=4) == (
        "lower train.micro_batch_size (now 16, the whole share of a worker), "
        "or set train.on_out_of_memory=halve (now stop), "
        "or set train.activation_checkpointing=true (now false), or set train.parallel=fsdp (now ddp)"
    )


def test_settings_that_cannot_help_are_not_named() -> None:
    section = TrainConfig(batch_size=4, workers=4, activation_checkpointing=True, parallel="fsdp")
    assert needs_less(section, workers=4) == "take a GPU with more memory, or a smaller encoder"
