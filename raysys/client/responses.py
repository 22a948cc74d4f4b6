"""The response to a call, and the exception for a response that is an error or not of the service."""

from __future__ import annotations

import datetime
import email.utils
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from raysys import errors
from raysys.errors import REASON_LENGTH, InputError, RaysysError, ServiceUnavailable
from raysys.serve.schemas import ErrorDetail, ErrorResponse
from raysys.terminal import printable

_MESSAGE_LENGTH = 1000  # the service cuts its messages there, too
# Only classes that define a code: their subclasses are more than the code says.
_CLASS_OF_CODE: dict[str, type[RaysysError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RaysysError) and "code" in vars(kind)
    if kind is not errors.Stopped
}
# For other codes, and for bodies of a proxy, which have none.
_CLASS_OF_STATUS: dict[int, type[RaysysError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    408: ServiceUnavailable,
    413: errors.TooLarge,
    429: ServiceUnavailable,
}


@dataclass(frozen=True)
class Response:
    """The complete response to one request."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def retry_after_s(self) -> float | None:
        """Seconds until the service accepts the request again; None if it does not say."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text)
        try:
            date = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def error_of(response: Response, where: str) -> RaysysError:
    """The exception for a response whose status is not 200, with the status and the code of the service.

    `where` names the request. The class follows the code, else the status.
    """
    detail = _error_detail(response)
    if detail is None:
        # The body is not quoted: a page for debugging may contain the headers of the request.
        return unexpected(response, where, f"content type '{response.content_type}'")
    kind = _CLASS_OF_CODE.get(detail.code) or _class_of_status(response.status)
    message = f"{where}: {printable(detail.message, _MESSAGE_LENGTH)}"
    if response.retry_after_s is not None:
        message += f" (Retry-After: {response.retry_after_s:g} s)"
    return _as_error(kind, message, response.status, detail.code)


def unexpected(response: Response, where: str, reason: str) -> RaysysError:
    """The exception for a response that is not of the HTTP contract, for example the page of a proxy."""
    kind = _class_of_status(response.status)
    if "location" in response.headers:
        reason = f"a redirect to {printable(response.headers['location'], REASON_LENGTH)}"
    remedy = "try again, or check" if issubclass(kind, ServiceUnavailable) else "check the URL, and"
    message = (
        f"{where}: HTTP {response.status}, not a response of raysys ({reason}); "
        f"{remedy} the proxy in front of the service"
    )
    return _as_error(kind, message, response.status, kind.code)


def describe_validation(error: ValueError) -> str:
    """What is wrong with a body, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg'].lower()}"
    return printable(error, REASON_LENGTH)


def _error_detail(response: Response) -> ErrorDetail | None:
    try:
        return ErrorResponse.model_validate_json(response.body).error
    except ValidationError:
        return None


def _class_of_status(status: int) -> type[RaysysError]:
    return _CLASS_OF_STATUS.get(status, ServiceUnavailable if status >= 500 else InputError)


def _as_error(kind: type[RaysysError], message: str, status: int, code: str) -> RaysysError:
    error = kind(message)
    error.http_status, error.code = status, code
    return error
