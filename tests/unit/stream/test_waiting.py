"""How long a stream has been waited for, what it says, and when that ends a run."""

from __future__ import annotations

import logging

import pytest

from raysys.errors import ClusterError
from raysys.stream.waiting import OperatorState, StreamWait, WaitClock, WaitInDriver, describe_wait


def test_clock_starts_again_with_every_output_and_while_nobody_waits() -> None:
    clock = WaitClock(100.0)
    waits = [
        clock.waited_s(now_s, num_outputs=num_outputs, is_awaited=is_awaited)
        for now_s, num_outputs, is_awaited in [
            (110.0, 0, True),
            (120.0, 1, True),  # the first output
            (150.0, 1, True),
            (200.0, 1, False),  # training is slower than its data
            (260.0, 1, True),
        ]
    ]
    assert waits == [10.0, 0.0, 30.0, 0.0, 60.0]


def test_description_names_tasks_queues_actors_and_free_cpus() -> None:
    operators = [
        OperatorState("ReadReads", 1, 7, 0, 0),
        OperatorState("StreamingRepartition[num_rows_per_block=8,strict=True]", 0, 0, 0, 0),
        OperatorState("MapBatches(_Decoder)", 0, 0, 1, 1),
        OperatorState("MapBatches(EmbeddingActor)", 2, 3, 4, 0),
        OperatorState("ReadReads->MapBatches(_Decoder)", 0, 0, 0, 0),
    ]
    assert describe_wait(operators, 0.0, 2.0) == (
        "reading: 1 task, 7 queued; repartitioning: 0 tasks, 0 queued; "
        "decoding: 1 of 2 actors running, 0 tasks, 0 queued; "
        "embedding: 4 of 4 actors running, 2 tasks, 3 queued; reading and decoding: 0 tasks, 0 queued; 0 of 2 CPUs of the cluster are free"
    )


def test_first_block_that_does_not_come_is_an_error() -> None:
    listener = WaitInDriver("embed", timeout_s=60.0)
    listener.waiting(
        StreamWait(59.0, is_first=True, text="decoding: ..; 0 of 2 CPUs of the cluster are free")
    )
    with pytest.raises(ClusterError) as caught:
        listener.waiting(StreamWait(61.0, is_first=True, text="0 of 2 CPUs of the cluster are free"))
    assert str(caught.value) == (
        "embed: no batch within 61 s (stream.first_batch_timeout_s): 0 of 2 CPUs of the cluster are free; "
        "if CPUs are missing, stop other work on the cluster or lower stream.decode_concurrency; "
        "if the data are slow, raise stream.first_batch_timeout_s"
    )


def test_later_wait_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    listener = WaitInDriver("embed", timeout_s=60.0)
    with caplog.at_level(logging.WARNING):
        for seconds in (55.0, 60.0, 65.0, 70.0, 5.0, 61.0):  # two waits
            listener.waiting(StreamWait(seconds, is_first=False, text="reading: 1 task"))
    assert [record.getMessage() for record in caplog.records] == [
        "    embed  no data for 60 s: reading: 1 task",
        "    embed  no data for 61 s: reading: 1 task",
    ]
