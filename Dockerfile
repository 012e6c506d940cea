# syntax=docker/dockerfile:1
# The full version is pinned, so that a rebuild changes nothing by itself.
ARG BASE=python:3.11.14-slim-bookworm

# --- build: the locked dependencies and the package, into one virtual environment --------------
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv /opt/gateway
COPY requirements-build.lock requirements.lock ./
RUN /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/gateway/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /opt/build/bin/hatchling build -t wheel \
 && /opt/gateway/bin/pip install --no-deps dist/*.whl \
 && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

# --- run: no compiler, no sources, no root ------------------------------------------------------
FROM ${BASE}
RUN groupadd --system --gid 10001 gateway \
 && useradd --system --uid 10001 --gid gateway --home-dir /var/lib/gateway --create-home gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 8080
# The admin listener, as the process sees it; GATEWAY_ADMIN_URL names another address.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ.get('GATEWAY_ADMIN_URL', 'http://127.0.0.1:9901') + '/health/live', timeout=2)"]
ENTRYPOINT ["gateway", "serve", "--config", "/etc/gateway/gateway.yaml"]
