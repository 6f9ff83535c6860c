#!/usr/bin/env python
"""Run a management command; `--data DIR` and `--port N` are understood by every one of them."""

import sys


def main() -> int:
    """Hand the command line to Django; a wrong setting is one sentence, not a traceback."""
    from ingest_project.env import set_default, take_global_options
    from ingest_project.stack.local import run_locally, take_local_option
    from ingestion.ports.errors import ConfigError, Retryable

    try:
        argv, is_local = take_local_option(take_global_options(sys.argv))
        set_default("DJANGO_SETTINGS_MODULE", "ingest_project.settings")
        # Our help is plain text; Typer would load rich's Markdown and tracebacks for it at every command.
        set_default("TYPER_USE_RICH", "0")
        from django.conf import settings
        from django.core.management import execute_from_command_line

        _ = settings.INSTALLED_APPS  # reads the settings, and so the environment
        if is_local:
            return run_locally(argv, data=settings.HEADGATE_DATA_DIR)
    except (ConfigError, Retryable) as error:
        sys.stderr.write(f"{error} [{error.code}]\n")
        return 2 if isinstance(error, ConfigError) else 5
    execute_from_command_line(argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
