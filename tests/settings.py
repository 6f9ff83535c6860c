"""Django's settings in tests: those of the product, in an environment and a data directory of their own."""

import atexit
import os
import shutil
import tempfile

from tests.environment import clean

clean(os.environ)
_data = tempfile.mkdtemp(prefix="headgate-tests-")
atexit.register(shutil.rmtree, _data, ignore_errors=True)
os.environ["HEADGATE_DATA"] = _data

from ingest_project.settings import *  # noqa: E402, F403 - the environment comes first

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a slow hash guards nothing here
