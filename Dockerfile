# syntax=docker/dockerfile:1
# The images of the product, one target each:
#   assets   the asset graph: code location, web server, daemon, MLflow server, exporter (`housing run NAME`)
#   serving  the prediction service
#   webapp   the web app, a client of the service
# They run as a user without rights, on a read-only root file system: all that is written goes to HOUSING_HOME
# and /tmp, which are mounted. What is installed is what deploy/requirements/ says, hash by hash.
ARG PYTHON_IMAGE=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY deploy/requirements/build.lock ./
RUN python3 -m venv /opt/venv \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --only-binary=:all: --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY housing_assets housing_assets
COPY housing_serving housing_serving
RUN ["/opt/build/bin/pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir=/wheels", "."]

# Wheels alone, so that no compiler is needed; pip itself has no place in what runs.
FROM builder AS build-assets
COPY deploy/requirements/assets.lock ./
RUN /opt/venv/bin/pip install --no-deps --only-binary=:all: --require-hashes -r assets.lock \
    && /opt/venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/venv/bin/pip uninstall --yes pip

FROM builder AS build-serving
COPY deploy/requirements/serving.lock ./
RUN /opt/venv/bin/pip install --no-deps --only-binary=:all: --require-hashes -r serving.lock \
    && /opt/venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/venv/bin/pip uninstall --yes pip

FROM builder AS build-webapp
COPY deploy/requirements/webapp.lock ./
RUN /opt/venv/bin/pip install --no-deps --only-binary=:all: --require-hashes -r webapp.lock \
    && /opt/venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/venv/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE} AS base
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="housing-assets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
ENV GIT_COMMIT=${GIT_COMMIT} \
    HOME=/tmp \
    HOST=0.0.0.0 \
    HOUSING_HOME=/data \
    PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 housing \
    && useradd --uid 10001 --gid housing --home-dir /tmp --no-create-home --shell /usr/sbin/nologin housing \
    && install --directory --owner=housing --group=housing /data
WORKDIR /data
STOPSIGNAL SIGTERM

FROM base AS assets
# LightGBM's threads. The base's digest fixes the release of Debian, and security updates are welcome.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-assets /opt/venv /opt/venv
ENV DAGSTER_HOME=/data/dagster GIT_PYTHON_REFRESH=quiet MPLCONFIGDIR=/tmp/matplotlib PORT=3000
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=6 CMD ["housing", "probe", "webserver"]
CMD ["housing", "run", "webserver"]

FROM base AS webapp
COPY --from=build-webapp /opt/venv /opt/venv
ENV WEBAPP_PORT=8501
USER 10001:10001
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['WEBAPP_PORT'] + '/_stcore/health', timeout=4)"]
CMD ["python3", "-m", "housing_serving.webapp"]

FROM base AS serving
COPY --from=build-serving /opt/venv /opt/venv
ENV PORT=8080
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]
CMD ["python3", "-m", "housing_serving"]
