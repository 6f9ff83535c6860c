"""Everything that goes wrong, as `application/problem+json` with a stable code and one sentence."""

import json
import logging
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError, IntegrityError, InterfaceError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.views import defaults
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.views import set_rollback

from ingestion.ports.errors import (
    AuthError,
    ConfigError,
    IngestError,
    RateLimited,
    Refused,
    Rejected,
    Retryable,
    RowsRejected,
    StoreCorrupt,
)
from ingestion.toolkit.redact import redact

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
NAMED_USERS = 3
"""So many rows of a kind are named where they keep another one from being removed."""
_REQUEST_ID = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
_STATUS_OF_CODE = {
    "file.too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "request.invalid": HTTPStatus.BAD_REQUEST,
    "request.forbidden": HTTPStatus.FORBIDDEN,
}
_STATUS_OF_KIND: tuple[tuple[type[IngestError], HTTPStatus], ...] = (
    (ConfigError, HTTPStatus.BAD_REQUEST),
    (RowsRejected, HTTPStatus.BAD_REQUEST),
    (AuthError, HTTPStatus.BAD_GATEWAY),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (Retryable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreCorrupt, HTTPStatus.INTERNAL_SERVER_ERROR),
    (Rejected, HTTPStatus.BAD_GATEWAY),
    (Refused, HTTPStatus.CONFLICT),
)


class Problem(Exception):
    """Answer to the client: status, error, the wrong fields, headers, and more members of the answer."""

    def __init__(
        self,
        status: int,
        error: IngestError,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = HTTPStatus(status)
        self.error = error
        self.errors = errors or []
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        super().__init__(error.code)

    def body(self) -> dict[str, Any]:
        """Return the problem as RFC 9457 writes it."""
        body: dict[str, Any] = {
            "type": f"urn:headgate:problem:{self.error.code}",
            "title": self.status.phrase,
            "status": int(self.status),
            "code": self.error.code,
            "detail": self._detail(),
        }
        if self.errors:
            body["errors"] = self.errors
        return {**body, **self.members}

    def _detail(self) -> str:
        # What others said may hold secrets. Our own sentences about a request name fields, such as "password: required",
        # which would be taken for one.
        if isinstance(self.error, ConfigError | Refused) and self.error.code.startswith(("request.", "config.")):
            return str(self.error)
        return redact(str(self.error))


def handle_exception(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Return the answer to a request of the API that failed; called by Django REST framework."""
    set_rollback()
    return answer(error, context["request"])


def answer(error: Exception, request: Request | HttpRequest) -> HttpResponse:
    """Return the problem as a response; what nobody expected is logged under an incident id."""
    problem = describe(error)
    if problem is None:
        incident = uuid.uuid4().hex[:12]
        logger.error("Incident %s in %s %s", incident, request.method, request.path, exc_info=error)
        problem = Problem(500, IngestError("request.errored", incident=incident))
    given = request.META.get("HTTP_X_REQUEST_ID", "")
    request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
    body = {**problem.body(), "instance": request.path, "request_id": request_id}
    response = HttpResponse(json.dumps(body, default=str), status=problem.status, content_type=CONTENT_TYPE)
    for name, value in {**problem.headers, "X-Request-ID": request_id}.items():
        response[name] = value
    return response


def describe(error: Exception) -> Problem | None:
    """Return what the client is told of an error; None for a defect of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, IngestError):
        return _of_ours(error)
    if isinstance(error, exceptions.APIException):
        return _of_framework(error)
    return _of_django(error)


def invalid(*details: str, status: int = HTTPStatus.BAD_REQUEST) -> Problem:
    """Return the problem of a request that does not validate."""
    return Problem(status, ConfigError("request.invalid", detail="; ".join(details)))


def unavailable(part: str) -> Problem:
    """Return the problem of a part that does not answer."""
    error = IngestError("request.unavailable", part=part)
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, error, headers={"Retry-After": str(RETRY_AFTER_S)})


def _of_ours(error: IngestError) -> Problem:
    kinds = (status for kind, status in _STATUS_OF_KIND if isinstance(error, kind))
    status = next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, Refused | ConfigError):
        if error.code.endswith(".not_found"):
            status = HTTPStatus.NOT_FOUND
        status = _STATUS_OF_CODE.get(error.code, status)
    headers = {}
    if isinstance(error, Retryable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or RETRY_AFTER_S)))
    # A contract's problems come as "columns.0.min: sentence", one by one.
    problems = error.values.get("problems") or []
    return Problem(
        status, error, headers=headers, errors=[_field(*str(text).partition(": ")[::2]) for text in problems]
    )


def _of_framework(error: exceptions.APIException) -> Problem:
    detail = str(error.detail).rstrip(".")
    if isinstance(error, exceptions.ValidationError):
        found = list(_flatten(error.detail))
        problem = invalid(*(f"{name}: {text}".removeprefix(": ").rstrip(".") for name, text in found))
        problem.errors = [_field(name, text) for name, text in found]
        return problem
    if isinstance(error, exceptions.Throttled):
        wait_s = max(1, math.ceil(getattr(error, "wait", None) or 1))
        refused = Refused("request.throttled", retry_after_s=wait_s)
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, refused, headers={"Retry-After": str(wait_s)})
    if isinstance(error, exceptions.PermissionDenied) and detail.startswith("CSRF"):
        return Problem(HTTPStatus.FORBIDDEN, Refused("request.csrf"))
    subject = str(error.args[0]) if error.args else ""
    headers = {"WWW-Authenticate": value} if (value := getattr(error, "auth_header", "")) else {}
    for kind, status, refused in (
        (exceptions.NotAuthenticated, 401, Refused("request.unauthenticated")),
        (exceptions.AuthenticationFailed, 401, Refused("request.unauthenticated")),
        (exceptions.PermissionDenied, 403, Refused("request.forbidden")),
        (exceptions.NotFound, 404, Refused("request.not_found")),
        (exceptions.MethodNotAllowed, 405, Refused("request.method", method=subject)),
        (exceptions.UnsupportedMediaType, 415, Refused("request.media_type", media_type=subject)),
    ):
        if isinstance(error, kind):
            return Problem(status, refused, headers=headers)
    return Problem(error.status_code, ConfigError("request.invalid", detail=detail))


def _told(rows: Iterable[Any]) -> str:
    """Return the first rows of each kind by name, and how many more there are."""
    by_kind: dict[str, list[str]] = {}
    for row in rows:
        kind = row._meta.verbose_name
        by_kind.setdefault(kind, []).append(str(row).removeprefix(f"{kind} "))
    told = []
    for kind, names in sorted(by_kind.items()):
        more = len(names) - NAMED_USERS
        told.append(f"{kind} {', '.join(sorted(names)[:NAMED_USERS])}" + (f" and {more} more" if more > 0 else ""))
    return "; ".join(told)


def _of_django(error: Exception) -> Problem | None:
    if isinstance(error, ProtectedError | RestrictedError):
        rows = error.protected_objects if isinstance(error, ProtectedError) else error.restricted_objects
        return Problem(HTTPStatus.CONFLICT, Refused("request.in_use", users=_told(rows)))
    if isinstance(error, MultiPartParserError | SuspiciousOperation) and not isinstance(error, RequestDataTooBig):
        return invalid("the body or a header is malformed")
    if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, IntegrityError):
        logger.error("The database failed a request", exc_info=error)
        return unavailable("The database")
    if isinstance(error, RedisError):
        return unavailable("The cache")
    for kind, status, refused in (
        (Http404, 404, Refused("request.not_found")),
        (DjangoPermissionDenied, 403, Refused("request.forbidden")),
        (RequestDataTooBig, 413, Refused("request.too_large")),
        (IntegrityError, 409, Refused("request.conflict", detail="Somebody else has just saved the same. Look again.")),
    ):
        if isinstance(error, kind):
            return Problem(status, refused)
    return None


def _field(name: str, text: str) -> dict[str, str]:
    return {"field": name, "message": text}


def _flatten(detail: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            own = "" if key == "non_field_errors" else str(key)
            yield from _flatten(inner, ".".join(filter(None, (name, own))))
    elif isinstance(detail, list):
        nested = any(isinstance(inner, Mapping | list) for inner in detail)
        for position, inner in enumerate(detail):
            if inner:
                yield from _flatten(inner, f"{name}.{position}".lstrip(".") if nested else name)
    else:
        yield name, str(detail)


# --- the whole site's handlers: below /api/ a problem, elsewhere Django's own page


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself refuses."""
    if _is_api(request):
        return answer(exception, request)
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that is not allowed."""
    if _is_api(request):
        return answer(exception, request)
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request to an address that is none."""
    if _is_api(request):
        return answer(exception, request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a request that ran into a defect outside of the views."""
    if _is_api(request):
        incident = uuid.uuid4().hex[:12]
        logger.error("Incident %s in %s %s; its traceback stands above", incident, request.method, request.path)
        return answer(Problem(500, IngestError("request.errored", incident=incident)), request)
    return defaults.server_error(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")
