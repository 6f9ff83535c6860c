#!/usr/bin/env python
"""Run a management command; `--data DIR` and `--port N` are understood by every one of them."""

import sys


def main() -> int:
    """Hand the command line to Django; a wrong setting is one sentence, not a traceback."""
    from ingest_project.env import set_default, take_global_options
    from ingestion.ports.errors import ConfigError

    try:
        argv = take_global_options(sys.argv)
        set_default("DJANGO_SETTINGS_MODULE", "ingest_project.settings")
        from django.conf import settings
        from django.core.management import execute_from_command_line

        _ = settings.INSTALLED_APPS  # reads the settings, and so the environment
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    execute_from_command_line(argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
