"""Watches a stream where Ray Data executes it, because there its operators' states are known.

That is the driver for `embed`, and an actor of Ray Train for `train`.
"""

from __future__ import annotations

import time
from typing import Any

import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.input_data_buffer import InputDataBuffer
from ray.data._internal.execution.operators.output_splitter import OutputSplitter
from ray.data.exceptions import ExecutionTimeoutError

from raysys.errors import RaysysError
from raysys.stream.waiting import OperatorState, StreamWait, WaitClock, WaitListener, describe_wait
from raysys.tracking.ray_messages import RayDataWarnings

_SCHEDULER_PAUSE_S = 0.02
_REPORT_INTERVAL_S = 5.0
_WARN_AFTER_S = 30.0
_LISTENER = "raysys.wait_listener"


def watch(stream: ray.data.Dataset, listener: WaitListener) -> None:
    """Let `listener` know while consumers of the stream wait for its next block.

    A RaysysError of the listener reaches the consumers as the cause of an ExecutionTimeoutError of Ray Data.
    """
    stream.context.set_config(_LISTENER, listener)


class StreamWatch(ExecutionCallback):
    """Reports a stream that delivers nothing, and pauses Ray Data's scheduling loop.

    While training is slower than its data, every task has output waiting, and the loop of Ray 2.60 polls
    without a pause: on two cores it used most of one.
    """

    def before_execution_starts(self, executor: Any) -> None:
        """Read the listener of this stream, and start to collect the warnings of Ray Data."""
        self._listener: WaitListener | None = executor._data_context.get_config(_LISTENER)
        now_s = time.monotonic()
        # An encoder may compute for long, so a task at the end of the pipeline counts as progress.
        self._without_task, self._without_output = WaitClock(now_s), WaitClock(now_s)
        self._report_at_s = now_s + _REPORT_INTERVAL_S
        self._warnings = RayDataWarnings()
        if self._listener is not None:
            self._warnings.start()

    def on_execution_step(self, executor: Any) -> None:
        """Pause, and report every few seconds while the last operator has no output for its consumers."""
        time.sleep(_SCHEDULER_PAUSE_S)
        if self._listener is None:
            return
        now_s, (last, state) = time.monotonic(), executor._output_node
        num_outputs, is_awaited = state.num_completed_tasks, state.num_waiting_consumers > 0
        without_output_s = self._without_output.waited_s(
            now_s, num_outputs=num_outputs, is_awaited=is_awaited
        )
        without_task_s = self._without_task.waited_s(
            now_s, num_outputs=num_outputs, is_awaited=is_awaited and not last.num_active_tasks()
        )
        if now_s < self._report_at_s:
            return
        self._report_at_s = now_s + _REPORT_INTERVAL_S
        if without_output_s >= _WARN_AFTER_S:
            for line in self._warnings.take():
                self._listener.warn(line)
        if without_task_s >= _REPORT_INTERVAL_S:
            wait = StreamWait(without_task_s, num_outputs == 0, _state_of(executor))
            try:
                self._listener.waiting(wait)
            except RaysysError as error:
                # For any other class Ray Data logs its stack and asks for a bug report.
                raise ExecutionTimeoutError(str(error)) from error

    def after_execution_succeeds(self, executor: Any) -> None:
        """Stop to collect warnings."""
        self._warnings.stop()

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Stop to collect warnings."""
        self._warnings.stop()


def _state_of(executor: Any) -> str:
    operators = [
        _operator_state(operator, state)
        for operator, state in executor._topology.items()
        if not isinstance(operator, InputDataBuffer | OutputSplitter)
    ]
    cpus = (resources().get("CPU", 0.0) for resources in (ray.available_resources, ray.cluster_resources))
    return describe_wait(operators, *cpus)


def _operator_state(operator: Any, state: Any) -> OperatorState:
    actors = operator.get_actor_info()
    return OperatorState(
        operator.name,
        num_tasks=operator.num_active_tasks(),
        num_queued=state.total_enqueued_input_blocks(),
        num_actors=actors.running,
        num_starting_actors=actors.pending + actors.restarting,
    )
