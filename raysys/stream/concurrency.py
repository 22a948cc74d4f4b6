"""How many readers and decoders a stream has, and what a pipeline needs in all.

The rule for numbers that the configuration leaves open: one CPU for each process that computes (a training
worker, also one that holds only a GPU, or an encoder of `embed`), one for repartitioning and the driver; of
the others one in nine reads and the rest decode. At least one reader and two decoders, as far as they fit the
cluster's logical CPUs; from four others on two readers, so that one window of shards is fetched while another
is read. Reading takes far less CPU time than decoding (0.2 ms for a photo of 100 kB, 4 ms to decode 0.3 Mpx),
but an object store answers late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from raysys.cluster import nodes as cluster_nodes
from raysys.cluster.capacity import Demand, Node, place
from raysys.config.schema import StreamConfig
from raysys.tracking.logs import log

Holder = Callable[[Sequence[Node]], Demand]  # the processes that compute, given the present nodes
_CPUS_PER_READER, _CPUS_FOR_TWO_READERS = 9, 4
_FEWEST_DECODERS = 2  # one would make the others wait whenever it gets a large photo
_READ, _DECODE = "stream.read_concurrency", "stream.decode_concurrency"


class Concurrency(NamedTuple):
    """The parallel processes of a stream, each with one CPU."""

    decoders: int
    readers: int


def admit(stage: str, section: StreamConfig, holder: Holder, *, may_grow: bool) -> Concurrency:
    """Check that the pipeline fits the cluster, log the concurrency of its stream and return it.

    `holder` states the processes that compute. With `may_grow`, waits for the nodes of an autoscaling
    cluster. Raises: InputError if the processes of the pipeline do not fit the cluster at the same time.
    """
    nodes = cluster_nodes.wait_for_nodes(
        stage, lambda present: demands(section, holder(present)), may_grow=may_grow
    )
    compute, cores = holder(nodes), cluster_nodes.num_cores(nodes)
    chosen = choose_concurrency(section, nodes, compute, cores=cores)
    log.info("%9s  %s", stage, concurrency_line(chosen, compute, cores))
    return chosen


def demands(section: StreamConfig, compute: Demand) -> list[Demand]:
    """Everything that a pipeline holds at the same time; of an open number the least that it works with.

    Repartitioning takes turns with reading: with two CPUs, one decoder and one reader a stream delivers.
    """
    one_cpu = {"CPU": 1.0}
    alternative = ("set it to null",)
    readers, decoders = section.read_concurrency, section.decode_concurrency
    return [
        compute,
        Demand(readers or 1, "reader", _READ, one_cpu, alternative if readers else ()),
        Demand(decoders or 1, "decoder", _DECODE, one_cpu, alternative if (decoders or 1) > 1 else ()),
    ]


def choose_concurrency(
    section: StreamConfig, nodes: Sequence[Node], compute: Demand, *, cores: int
) -> Concurrency:
    """The configured concurrency, or the rule's (see above) for the numbers that are null.

    `cores` are the CPUs of the nodes that exist as hardware.
    """
    free = sum(int(left.get("CPU", 0.0)) for left in place(nodes, [compute]).left)
    spare = cores - compute.count - 1
    readers = section.read_concurrency
    if readers is None:
        at_most = free - (section.decode_concurrency or 1)
        fewest = 2 if spare >= _CPUS_FOR_TWO_READERS else 1
        readers = max(1, min(max(fewest, spare // _CPUS_PER_READER), at_most))
    decoders = section.decode_concurrency
    if decoders is None:
        decoders = max(1, min(max(_FEWEST_DECODERS, spare - readers), free - readers))
    return Concurrency(decoders, readers)


def concurrency_line(chosen: Concurrency, compute: Demand, cores: int) -> str:
    """`8 training workers, 9 readers and 78 decoders on 96 CPUs`."""
    parts = [
        f"{count} {noun}{'s' if count > 1 else ''}"
        for count, noun in (
            (compute.count, compute.noun),
            (chosen.readers, "reader"),
            (chosen.decoders, "decoder"),
        )
    ]
    return f"{parts[0]}, {parts[1]} and {parts[2]} on {cores} CPUs"
