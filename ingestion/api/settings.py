"""Settings of Django REST framework and drf-spectacular."""

from typing import Any

VERSION = "0.1.0"

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "ingestion.api.authentication.TokenAuthentication",
        "ingestion.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["ingestion.api.bodies.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["ingestion.api.bodies.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "ingestion.api.problems.handle_exception",
    # ?format= is a filter of nobody's: an unknown parameter is refused like any other.
    "URL_FORMAT_OVERRIDE": None,
    # X-Forwarded-For is written by whoever sends the request, so it is no address to count attempts by.
    "NUM_PROXIES": 0,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Headgate",
    "DESCRIPTION": (
        "Data ingestion: sources, pipelines, runs and the accepted records.\n\n"
        "Send `Authorization: Token <token>` with every request; `POST /api/v1/tokens` gives one for a user name and "
        "password. Lists are read page by page: follow `next` until it is null. Every error is "
        "`application/problem+json` with a stable `code`."
    ),
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "PREPROCESSING_HOOKS": ["ingestion.api.schema.leave_out_aliases"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "ingestion.api.schema.describe_problems",
    ],
    "ENUM_NAME_OVERRIDES": {
        "RunState": "ingestion.models.RunState",
        "PartitionState": "ingestion.models.PartitionState",
        "DeliveryState": "ingestion.api.deliveries.STATES",
        "Trigger": "ingestion.models.Run.Trigger",
        "Mode": "ingestion.models.Pipeline.Mode",
        "Priority": "ingestion.models.Priority",
        "TaskStatus": "ingestion.api.legacy.TaskStatus",
        "HealthStatus": "ingestion.api.health.STATUSES",
    },
}
