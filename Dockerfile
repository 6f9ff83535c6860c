# One image for web, workers, beat and Flower.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HEADGATE_DATA=/data

RUN groupadd --gid 10001 headgate \
    && useradd --uid 10001 --gid headgate --home-dir /app --shell /usr/sbin/nologin headgate \
    && install --directory --owner headgate --group headgate /data

WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY manage.py ./
COPY ingest_project ingest_project
COPY ingestion ingestion
COPY connectors connectors
COPY sinks sinks
COPY sample sample

USER headgate
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "gunicorn", "ingest_project.wsgi:application", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "8", "--timeout", "300", "--no-control-socket", "--config", "python:ingest_project.stack.gunicorn_hooks"]
