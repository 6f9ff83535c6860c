"""Django's settings, from the typed environment and what a running stack tells."""

from pathlib import Path
from typing import Any

import dj_database_url

from ingest_project import plugins, queues
from ingest_project.env import BASE_DIR, load_environment
from ingest_project.keys import close_to_others, keep_secret, make_fernet_key, make_password, make_signing_key
from ingest_project.redis_urls import next_database
from ingest_project.stack.druid.place import find_druid, stopped_place
from ingest_project.stack.state import read_state
from ingestion.api import settings as api

ENVIRONMENT = load_environment()
HEADGATE_ENV = ENVIRONMENT.headgate_env
HEADGATE_ALLOW_EMBEDDED = ENVIRONMENT.headgate_allow_embedded
HEADGATE_DATA_DIR: Path = (BASE_DIR / ENVIRONMENT.headgate_data).resolve()
HEADGATE_DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
_SECRETS = HEADGATE_DATA_DIR / "secrets"
_STACK = read_state(HEADGATE_DATA_DIR)

# --- secrets

SECRET_KEY = (
    ENVIRONMENT.headgate_secret_key.get_secret_value()
    if ENVIRONMENT.headgate_secret_key
    else keep_secret(_SECRETS / "secret_key", make=make_signing_key)
)
HEADGATE_SECRET_KEYS: list[str] = [
    key.strip()
    for key in (
        ENVIRONMENT.headgate_secret_keys.get_secret_value()
        if ENVIRONMENT.headgate_secret_keys
        else keep_secret(_SECRETS / "secret_keys", make=make_fernet_key)
    ).split(",")
    if key.strip()
]
HEADGATE_FLOWER_PASSWORD: str = (
    ENVIRONMENT.headgate_flower_password.get_secret_value()
    if ENVIRONMENT.headgate_flower_password
    else keep_secret(_SECRETS / "flower_password", make=make_password)
)

# --- the web

DEBUG = ENVIRONMENT.headgate_debug
HEADGATE_HOST = ENVIRONMENT.headgate_host
HEADGATE_PORT = ENVIRONMENT.headgate_port
ALLOWED_HOSTS = list(ENVIRONMENT.headgate_allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.headgate_trusted_origins)
ROOT_URLCONF = "ingest_project.urls"
WSGI_APPLICATION = "ingest_project.wsgi.application"
INSTALLED_APPS = [
    "ingestion.apps.HeadgateAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "ingestion",
    "ingest_project",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # the packages' own files are served as they are; there is no collecting step
WHITENOISE_ALLOW_ALL_ORIGINS = False
AUTHENTICATION_BACKENDS = ["ingestion.logins.LimitedBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENVIRONMENT.uses_tls
SECURE_HSTS_SECONDS = 31_536_000 if ENVIRONMENT.uses_tls else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = ENVIRONMENT.uses_tls
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENVIRONMENT.uses_tls else None
SECURE_REDIRECT_EXEMPT = [r"^api/(v1/)?health"]  # probes of the machine itself come by http
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
FILE_UPLOAD_TEMP_DIR = None

# --- the API

REST_FRAMEWORK = api.REST_FRAMEWORK
SPECTACULAR_SETTINGS = api.SPECTACULAR_SETTINGS

# --- the database

HEADGATE_EMBEDDED: list[str] = []
"""The parts that run on this machine because nothing else was configured."""

SQLITE_OPTIONS = {
    # Measured: without these, simultaneous tasks end in "database is locked".
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
}
if ENVIRONMENT.database_url is None:
    HEADGATE_EMBEDDED.append("database")
    DATABASES: dict[str, Any] = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HEADGATE_DATA_DIR / "headgate.sqlite3"}
    }
    # SQLite makes it by the umask; its journals take the rights of the file.
    close_to_others(DATABASES["default"]["NAME"])
else:
    DATABASES = {
        "default": dict(
            dj_database_url.parse(ENVIRONMENT.database_url.get_secret_value(), conn_max_age=60, conn_health_checks=True)
        )
    }
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {**SQLITE_OPTIONS, **DATABASES["default"].get("OPTIONS", {})}
    DATABASES["default"]["CONN_MAX_AGE"] = None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

# --- broker, results, limits, cache

HEADGATE_NO_BROKER = "redis://127.0.0.1:1/0"
"""Stands for "no broker runs": nothing listens there, so a publication fails at once and its row stays due."""

_broker = ENVIRONMENT.broker_url or ENVIRONMENT.redis_url
if _broker is not None:
    CELERY_BROKER_URL = _broker.get_secret_value()
else:
    HEADGATE_EMBEDDED.append("broker")
    CELERY_BROKER_URL = (_STACK.broker_url if _STACK else None) or HEADGATE_NO_BROKER
_redis = ENVIRONMENT.redis_url.get_secret_value() if ENVIRONMENT.redis_url else CELERY_BROKER_URL
_has_redis = _redis.startswith(("redis://", "rediss://", "unix://"))
CELERY_RESULT_BACKEND = next_database(_redis, steps=1) if _has_redis else None
HEADGATE_REDIS_URL: str = next_database(_redis, steps=2) if _has_redis else HEADGATE_NO_BROKER
CACHES = {
    "default": (
        {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        if HEADGATE_REDIS_URL.startswith(HEADGATE_NO_BROKER.removesuffix("/0"))
        else {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": HEADGATE_REDIS_URL,
            "KEY_PREFIX": "headgate:cache",
        }
    )
}

# --- the lake

if not ENVIRONMENT.headgate_lake_url:
    HEADGATE_EMBEDDED.append("lake")
HEADGATE_LAKE_URL: str = ENVIRONMENT.headgate_lake_url or str(HEADGATE_DATA_DIR / "lake")

# --- Druid

HEADGATE_DRUID_VERSION: str = ENVIRONMENT.headgate_druid_version
HEADGATE_DRUID_EXTENSIONS: bool = ENVIRONMENT.headgate_druid_extensions

_druid = find_druid(ENVIRONMENT, data=HEADGATE_DATA_DIR)
if _druid is not None and _druid.is_embedded:
    HEADGATE_EMBEDDED.append("druid")
HEADGATE_DRUID: dict[str, Any] | None = dict(_druid.config) if _druid else None
"""The configuration of the default Druid destination, or None where no Druid is known."""

HEADGATE_DRUID_SECRETS: dict[str, str] = dict(_druid.secrets) if _druid else {}

# --- what may be reached and taken in

HEADGATE_DEMO_PORT: int | None = _STACK.demo_port if _STACK else None
"""The port kept free for the demo provider of the bundled sample."""

HEADGATE_EGRESS_ALLOW: list[str] = list(ENVIRONMENT.headgate_egress_allow)
if HEADGATE_DEMO_PORT and not ENVIRONMENT.is_production:
    HEADGATE_EGRESS_ALLOW.append(f"127.0.0.1:{HEADGATE_DEMO_PORT}")
# One of our own that is stopped stays allowed, so that it is said to be stopped and not to be forbidden.
_reached = _druid or stopped_place(HEADGATE_DATA_DIR)
if _reached is not None and (not _reached.is_embedded or not ENVIRONMENT.is_production or HEADGATE_ALLOW_EMBEDDED):
    HEADGATE_EGRESS_ALLOW.extend(_reached.reached)
HEADGATE_EGRESS_PORTS: list[int] = list(ENVIRONMENT.headgate_egress_ports)
HEADGATE_UPLOAD_MAX_BYTES = ENVIRONMENT.headgate_upload_max_bytes

# --- what queries over published rows may use

HEADGATE_QUERY_TIMEOUT_S = ENVIRONMENT.headgate_query_timeout_s
HEADGATE_QUERY_MEMORY_BYTES = ENVIRONMENT.headgate_query_memory_bytes
HEADGATE_QUERY_CACHE_BYTES = ENVIRONMENT.headgate_query_cache_bytes

# --- the engine

HEADGATE_LEASE_S = ENVIRONMENT.headgate_lease_s
HEADGATE_WATCH_S = ENVIRONMENT.headgate_watch_s
HEADGATE_STALL_S = ENVIRONMENT.headgate_stall_s
HEADGATE_SLOT_S = ENVIRONMENT.headgate_slot_s
HEADGATE_MAX_ACTIVE_RUNS = ENVIRONMENT.headgate_max_active_runs
HEADGATE_PARTITION_BYTES = ENVIRONMENT.headgate_partition_bytes
HEADGATE_MAX_ATTEMPTS = ENVIRONMENT.headgate_max_attempts
HEADGATE_RESEND_AFTER_S = ENVIRONMENT.headgate_resend_after_s
HEADGATE_CHORD_SIZE = ENVIRONMENT.headgate_chord_size
HEADGATE_RECONCILE_S = ENVIRONMENT.headgate_reconcile_s
HEADGATE_SCHEDULE_S = ENVIRONMENT.headgate_schedule_s
HEADGATE_AGEING_S = ENVIRONMENT.headgate_ageing_s
HEADGATE_FAILPOINTS = ENVIRONMENT.headgate_failpoints
HEADGATE_SWITCH_OFF: list[str] = list(ENVIRONMENT.headgate_switch_off)
HEADGATE_CONNECTORS = plugins.CONNECTORS
HEADGATE_SINKS = plugins.SINKS
HEADGATE_OWN_KINDS = plugins.OWN_KINDS
HEADGATE_QUEUES: dict[str, queues.Queue] = queues.apply_rates(ENVIRONMENT.headgate_queue_rates)
HEADGATE_TASK_QUEUES: dict[str, str] = dict(queues.TASK_QUEUES)
HEADGATE_MESSAGE_PRIORITY = "ingest_project.queues.message_priority"
HEADGATE_CELERY_APP = "ingest_project.celery.app"

# --- Celery; the names are its own with CELERY_ before them

_KEY_PREFIX = "headgate:"
_VISIBILITY_TIMEOUT_S = queues.visibility_timeout_s(HEADGATE_QUEUES)
CELERY_TASK_DEFAULT_QUEUE = "system"
CELERY_TASK_DEFAULT_PRIORITY = queues.transport_priority(5, scheme=CELERY_BROKER_URL.partition(":")[0])
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_ROUTES = {task: {"queue": queue} for task, queue in HEADGATE_TASK_QUEUES.items()}
CELERY_TASK_ANNOTATIONS = {
    task: {
        "soft_time_limit": HEADGATE_QUEUES[queue].soft_limit_s,
        "time_limit": HEADGATE_QUEUES[queue].hard_limit_s,
    }
    for task, queue in HEADGATE_TASK_QUEUES.items()
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_RETRY_ON_WORKER_LOST = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TRACK_STARTED = True
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_TASK_INHERIT_PARENT_PRIORITY = True
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_EXPIRES = 3600
CELERY_RESULT_CHORD_EXPIRES = 24 * 3600
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# A new pool process costs a second of CPU; memory is bounded by the next setting.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 2000
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 1_000_000  # KiB
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A request that publishes must not hang on a dead broker: its row stays, and is sent by the next reconciliation.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {
        "visibility_timeout": _VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "priority_steps": list(queues.PRIORITY_STEPS),
        "queue_order_strategy": "priority",
        "global_keyprefix": _KEY_PREFIX,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        # A publication to a dead broker fails at once: its row stays due. Workers reconnect by rules of their own.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.2,
    }
    if CELERY_BROKER_URL.startswith(("redis", "rediss"))
    else {"confirm_publish": True}
)
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {
    "visibility_timeout": _VISIBILITY_TIMEOUT_S,
    "global_keyprefix": _KEY_PREFIX,
}
CELERY_VISIBILITY_TIMEOUT = _VISIBILITY_TIMEOUT_S
CELERY_REDIS_SOCKET_TIMEOUT = 30.0
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 5.0
CELERY_REDIS_SOCKET_KEEPALIVE = True
# The ticks are few and harmless when doubled, so beat keeps no file of when each was last sent.
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    name: {"task": f"ingestion.{name}", "schedule": every_s, "options": {"expires": every_s}}
    for name, every_s in (
        ("reconcile", HEADGATE_RECONCILE_S),
        ("create_due_runs", HEADGATE_SCHEDULE_S),
        ("clean_up", 3600.0),
    )
}

# --- the log

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "bound": {"()": "ingestion.telemetry.binding.BindingFilter"},
        "redacted": {"()": "ingestion.toolkit.redact.RedactingFilter"},
    },
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s%(bound)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["bound", "redacted"]}},
    "root": {"handlers": ["console"], "level": ENVIRONMENT.headgate_log_level},
    "loggers": {
        # A line for each request or task at INFO; httpx's would name URLs with their query.
        name: {"level": "WARNING"}
        for name in ("httpx", "httpcore", "botocore", "urllib3", "kombu", "celery", "tornado")
    },
}
