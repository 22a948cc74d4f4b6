"""When a call is sent again, and when it has failed: the same rules for both clients, without IO.

Every call may be sent again: searches change nothing, and a change that is applied twice has the effect of
one.
"""

from __future__ import annotations

import random
import time
from typing import TypeVar

import httpx

from raysys.client.call import Call
from raysys.client.responses import Response, describe_validation, error_of, unexpected
from raysys.errors import REASON_LENGTH, RaysysError, ServiceUnavailable
from raysys.terminal import printable

T = TypeVar("T")
# Rate limit, a proxy without an answer of the service, overload, a proxy that did not wait long enough.
_TRANSIENT = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S = 0.1  # doubled before each further attempt


class Attempts:
    """The attempts of one call, from its first request to its result or error."""

    def __init__(self, where: str, timeout_s: float, retries: int) -> None:
        self._where, self._timeout_s, self._retries = where, timeout_s, retries
        self._deadline = time.monotonic() + timeout_s
        self._num_waits = 0

    def remaining_s(self) -> float:
        """Seconds until the deadline of the call. Raises: ServiceUnavailable after it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.timed_out()
        return left

    def wait_s(self, outcome: Response | httpx.RequestError) -> float | None:
        """Seconds to wait before the request is sent again; None if the outcome is final."""
        if isinstance(outcome, Response) and outcome.status not in _TRANSIENT:
            return None
        wait_s = outcome.retry_after_s if isinstance(outcome, Response) else None
        if wait_s is None:  # Random, so that clients that failed together do not return together.
            wait_s = random.uniform(0.5, 1) * _FIRST_WAIT_S * 2**self._num_waits
        if self._num_waits == self._retries or wait_s >= self._deadline - time.monotonic():
            return None
        self._num_waits += 1
        return wait_s

    def result(self, call: Call[T], outcome: Response | httpx.RequestError) -> T:
        """The result of a final outcome. Raises: the error of the service, or ServiceUnavailable."""
        if isinstance(outcome, httpx.TimeoutException):
            raise self.timed_out() from outcome
        if isinstance(outcome, httpx.RequestError):
            times = "" if self._num_waits == 0 else f" in {self._num_waits + 1} attempts"
            reason = printable(outcome, REASON_LENGTH) or type(outcome).__name__
            raise ServiceUnavailable(
                f"{self._where}: no response{times} ({reason}); check that the service runs at this address"
            ) from outcome
        if outcome.status != httpx.codes.OK:
            raise error_of(outcome, self._where)
        try:
            return call.parse(outcome)
        except ValueError as error:
            # Without the cause: an error of pydantic quotes the body, which may contain the token.
            raise unexpected(outcome, self._where, describe_validation(error)) from None

    def timed_out(self) -> RaysysError:
        """The error of a call that has passed its deadline."""
        return ServiceUnavailable(
            f"{self._where}: no complete response within {self._timeout_s:g} s; "
            "check the service, or raise timeout_s of the client"
        )
