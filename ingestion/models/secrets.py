"""A JSON column that is encrypted at rest, with key rotation."""

import json
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models


def cipher() -> MultiFernet:
    """Return the cipher of `settings.HEADGATE_SECRET_KEYS`; the first key encrypts, all of them decrypt."""
    return MultiFernet([Fernet(key) for key in settings.HEADGATE_SECRET_KEYS])


if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]
else:
    _TextField = models.TextField


class EncryptedJSONField(_TextField):
    """Keeps a JSON object as Fernet text; what is read back is the object."""

    def from_db_value(self, value: str | None, _expression: Any, _connection: Any) -> Any:
        """Return the decrypted object; ImproperlyConfigured where no configured key fits."""
        if not value:
            return {}
        try:
            return json.loads(cipher().decrypt(value.encode()))
        except InvalidToken as error:
            msg = "a stored secret cannot be decrypted with the configured keys; restore the key it was written with"
            raise ImproperlyConfigured(msg) from error

    def get_prep_value(self, value: Any) -> str:
        """Return the encrypted text of the object."""
        if not value:
            return ""
        return cipher().encrypt(json.dumps(value, sort_keys=True).encode()).decode()

    def value_to_string(self, _obj: models.Model) -> str:
        """Return nothing: secrets do not leave by serialization."""
        return ""
