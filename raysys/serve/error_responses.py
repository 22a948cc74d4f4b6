"""Errors as responses in the format of the service, one line each."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.exceptions import HTTPException

from raysys.errors import InputError, RaysysError, ServiceUnavailable
from raysys.serve.schemas import ErrorDetail, ErrorResponse
from raysys.terminal import printable

RETRY_AFTER_S = 1  # for refused requests
_MAX_MESSAGE_LENGTH = 1000


def response_to(error: RaysysError) -> JSONResponse:
    """The response of a request that ended with an error of raysys."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    if error.code == ServiceUnavailable.code:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
    # The message of an error from another deployment contains its traceback; the cause is one line.
    cause = error.cause if isinstance(error, RayTaskError) else error
    return _response(error.http_status, error.code, str(cause), headers)


def response_to_unexpected(error: Exception) -> JSONResponse:
    """The response of a request that ended with any other error; its message may be secret."""
    return _response(500, RaysysError.code, f"internal error ({type(error).__name__}); see the server's log")


def add_error_handlers(app: FastAPI) -> None:
    """Let errors of raysys, FastAPI and Ray Serve become these responses."""

    @app.exception_handler(RaysysError)
    async def _on_raysys_error(_: Request, error: RaysysError) -> JSONResponse:
        return response_to(error)

    @app.exception_handler(RequestValidationError)
    async def _on_invalid_parameter(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        message = f"{first['loc'][-1]}: {first['msg'].lower()}, got {first.get('input')!r}"
        return _response(422, InputError.code, message)

    @app.exception_handler(HTTPException)
    async def _on_http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return _response(error.status_code, code, str(error.detail))

    @app.exception_handler(BackPressureError)
    async def _on_overload(_: Request, error: BackPressureError) -> JSONResponse:
        return response_to(ServiceUnavailable("too many requests are waiting; try again"))

    @app.exception_handler(RayActorError)
    async def _on_lost_replica(_: Request, error: RayActorError) -> JSONResponse:
        return response_to(ServiceUnavailable("a replica ended while it worked on the request; try again"))


def _response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    # The message may quote input.
    body = ErrorResponse(error=ErrorDetail(code=code, message=printable(message, _MAX_MESSAGE_LENGTH)))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)
