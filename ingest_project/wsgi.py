"""The web application as gunicorn loads it."""

from django.core.wsgi import get_wsgi_application

from ingest_project.env import set_default

set_default("DJANGO_SETTINGS_MODULE", "ingest_project.settings")

application = get_wsgi_application()
