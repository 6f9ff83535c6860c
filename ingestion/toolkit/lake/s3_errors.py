"""Every error of boto3 as one of ours; only codes and class names pass: the texts may hold more than they should."""

from http import HTTPStatus

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkUnavailable, StoreCorrupt

S3_ERRORS = (ClientError, BotoCoreError, HTTPError)
"""Exceptions that a call of boto3 can raise, the reading of a body included."""

MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
ALREADY_THERE = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
NOT_IMPLEMENTED = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})

_KINDS: dict[str, frozenset[str]] = {
    kind: frozenset(codes.split())
    for kind, codes in {
        "store.auth": """AccessDenied AccessDeniedException AccountProblem AllAccessDisabled AuthFailure
            CredentialsNotSupported ExpiredToken ExpiredTokenException Forbidden InvalidAccessKeyId
            InvalidClientTokenId InvalidObjectState InvalidPayer InvalidSecurity InvalidToken
            MissingAuthenticationToken MissingSecurityElement MissingSecurityHeader NotSignedUp RequestExpired
            RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired Unauthorized UnauthorizedAccess
            UnrecognizedClientException XAdminUserNotFound
            XAmzContentSHA256Mismatch""",
        "store.config": """AuthorizationHeaderMalformed AuthorizationQueryParametersError BucketAlreadyExists
            EntityTooLarge EntityTooSmall IllegalLocationConstraintException InvalidArgument InvalidBucketName
            InvalidBucketState InvalidEncryptionAlgorithmError InvalidLocationConstraint InvalidPart
            InvalidPartOrder InvalidRange InvalidRegionName InvalidRequest InvalidStorageClass InvalidURI
            KeyTooLongError MalformedXML MetadataTooLarge MethodNotAllowed MissingContentLength NoSuchBucket
            NotImplemented PermanentRedirect Redirect TooManyBuckets UserKeyMustBeSpecified""",
        "store.unavailable": """BandwidthLimitExceeded ConditionalRequestConflict IncompleteBody
            InternalError InternalServerError NoSuchUpload OperationAborted PriorRequestNotComplete
            RequestLimitExceeded RequestThrottled RequestThrottledException RequestTimeout ServerBusy
            ServiceUnavailable SlowDown SlowDownRead SlowDownWrite TemporaryRedirect Throttling
            ThrottlingException ThrottledException TooManyRequests TooManyRequestsException
            XMinioServerNotInitialized""",
        "store.checksum": "BadDigest XAmzContentChecksumMismatch",
        "store.no_space": "InsufficientStorage QuotaExceeded XMinioStorageFull XMinioQuotaExceeded",
    }.items()
}
_CLASSES: dict[str, type[IngestError]] = {
    "store.auth": AuthError,
    "store.config": ConfigError,
    "store.unavailable": SinkUnavailable,
    "store.checksum": SinkUnavailable,
    "store.no_space": SinkUnavailable,
}
_BY_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "store.auth",
    HTTPStatus.FORBIDDEN: "store.auth",
    HTTPStatus.REQUEST_TIMEOUT: "store.unavailable",
    HTTPStatus.CONFLICT: "store.unavailable",
    HTTPStatus.TOO_EARLY: "store.unavailable",
    HTTPStatus.TOO_MANY_REQUESTS: "store.unavailable",
    HTTPStatus.NOT_IMPLEMENTED: "store.config",
    HTTPStatus.INSUFFICIENT_STORAGE: "store.no_space",
}
_HINTS = {
    "AuthorizationHeaderMalformed": "the region is probably another one",
    # A HEAD has no body to say what is wrong; where it is the region, boto3 corrects other requests by itself.
    "400": "the region is probably another one",
    "PermanentRedirect": "the bucket is in another region",
    "301": "the bucket is in another region",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket or address",
}
_AUTH_CLASSES = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.LoginError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
)
_UNAVAILABLE_CLASSES = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.CapacityNotAvailableError,
    boto.PaginationError,
    boto.WaiterError,
)
_CHECKSUM_CLASSES = (boto.ChecksumError, boto.FlexibleChecksumError)
_CONFIG_CLASSES = (boto.SSLError, boto.ProxyConnectionError)


def code_of(error: ClientError) -> str:
    """Return the store's own code, or the HTTP status as text where an answer without a body carries none."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error) or "")


def status_of(error: ClientError) -> int:
    """Return the HTTP status of the answer, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: Exception, *, key: str, where: str) -> IngestError:
    """Return our error for one of `S3_ERRORS`; `where` names the endpoint, `key` the object that was asked for."""
    if isinstance(error, ClientError):
        return _from_code(code_of(error), status=status_of(error), operation=error.operation_name, key=key)
    detail = f"{type(error).__name__} at {where}"
    if isinstance(error, _AUTH_CLASSES):
        return AuthError("store.auth", detail=type(error).__name__)
    if isinstance(error, _CONFIG_CLASSES):
        return ConfigError("store.config", detail=detail)
    if isinstance(error, _CHECKSUM_CLASSES):
        return SinkUnavailable("store.checksum", detail=detail)
    if isinstance(error, (*_UNAVAILABLE_CLASSES, HTTPError)):
        return SinkUnavailable("store.unavailable", detail=detail)
    # The others of botocore speak of parameters, regions, profiles and endpoints: settings.
    return ConfigError("store.config", detail=detail)


def _from_code(code: str, *, status: int, operation: str, key: str) -> IngestError:
    if code in MISSING and key:
        return StoreCorrupt("store.missing", key=key)
    if code in ALREADY_THERE:
        return StoreCorrupt("store.conflict", key=key)
    kind = _kind_of(code, status=int(code) if code.isdecimal() else status)
    # A code that is none of S3's own is text of whoever answered.
    is_known = code.isdecimal() or any(code in codes for codes in _KINDS.values())
    hint = _HINTS.get(code)
    detail = f"{operation}: {code if is_known else status}" + (f", {hint}" if hint else "")
    return _CLASSES[kind](kind, detail=detail)


def _kind_of(code: str, *, status: int) -> str:
    for kind, codes in _KINDS.items():
        if code in codes:
            return kind
    is_refusal = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return _BY_STATUS.get(status, "store.config" if is_refusal else "store.unavailable")
