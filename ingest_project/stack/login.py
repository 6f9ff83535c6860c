"""The first operator's login."""

from django.contrib.auth import get_user_model

from ingest_project.keys import make_password
from ingest_project.stack.names import OPERATOR


def make_operator() -> str | None:
    """Return the password of the operator just made, or None where somebody may already log in."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    password = make_password()
    users.create_superuser(username=OPERATOR, password=password)
    return password
