"""How the encoders of `raysys embed` compute: device, precision, batches and threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysys.cluster.capacity import Node
from raysys.config.schema import EmbedConfig


@dataclass(frozen=True)
class EncoderOptions:
    """The options of each encoder of a run."""

    device: str
    precision: str
    batch_size: int
    is_compiled: bool = False
    num_threads: int | None = None  # on a CPU, with a core each; None: one, with PyTorch's number of cores

    @classmethod
    def of(cls, section: EmbedConfig, num_threads: int | None = None) -> EncoderOptions:
        """Those of a configuration."""
        return cls(
            device="cuda" if section.use_gpu else "cpu",
            precision=section.chosen_precision,
            batch_size=section.batch_size,
            is_compiled=section.is_compiled,
            num_threads=num_threads,
        )

    @property
    def has_fixed_batches(self) -> bool:
        """Whether every batch has exactly `batch_size` photos."""
        return self.device == "cuda"

    @property
    def blocks_at_a_time(self) -> int:
        """How many an actor gets: one to be written, one to fill the next batch, and those that are computed.

        A block has two batches or more, if it is not the last of a shard.
        """
        return 2 + -(-(self.num_threads or 1) // 2)


def options_on(section: EmbedConfig, nodes: Sequence[Node], cores: int) -> EncoderOptions:
    """The options of encoders on these nodes, which have so many CPUs.

    On a CPU the encoders share all cores, where Ray would give each one thread. The system divides the cores
    between encoders and decoders: an encoder that waits for photos leaves them to the decoders, and decoders
    pause when enough photos are decoded.
    """
    if section.use_gpu:
        return EncoderOptions.of(section)
    largest_node = max(int(node.resources.get("CPU", 0.0)) for node in nodes)
    return EncoderOptions.of(section, max(1, min(cores // section.actors, largest_node)))


def options_line(options: EncoderOptions) -> str:
    """`an encoder computes in fp32 on 16 CPU threads`."""
    where = "a GPU" if options.device == "cuda" else f"{options.num_threads} CPU threads"
    return f"an encoder computes in {options.precision}{', compiled,' * options.is_compiled} on {where}"
