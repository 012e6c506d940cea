# syntax=docker/dockerfile:1
# The full version is pinned, so that a rebuild changes nothing by itself. Any Debian or Ubuntu with
# Python 3.11 or newer as python3, and its venv, will do: --build-arg BASE=...
ARG BASE=python:3.11.14-slim-bookworm

# --- build: the locked dependencies and the package, into one virtual environment --------------
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The gateway's own environment has no pip: nothing is installed into it later.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/gateway
# With traces by OpenTelemetry (docs/tracing.md): --build-arg LOCK=requirements-otel.lock
ARG LOCK=requirements.lock
COPY requirements-build.lock ${LOCK} ./
RUN /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/gateway/bin/python install --no-compile \
      --require-hashes -r "${LOCK}"
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /opt/build/bin/hatchling build -t wheel \
 && /opt/build/bin/pip --python /opt/gateway/bin/python install --no-compile --no-deps dist/*.whl \
 && /opt/gateway/bin/python -m compileall -q -j 0 /opt/gateway/lib
# The defaults, so that the image runs as it is; whatever the checkout's modes, anybody may read them.
COPY gateway.yaml /etc/gateway/
COPY policies /etc/gateway/policies
COPY config/*.yaml /etc/gateway/config/
RUN chmod -R u=rwX,go=rX /etc/gateway /opt/gateway

# --- run: no compiler, no pip, no sources of the build, no root; the root may be read-only -------
FROM ${BASE}
RUN groupadd --system --gid 10001 gateway \
 && useradd --system --uid 10001 --gid gateway --home-dir /var/lib/gateway --create-home gateway
COPY --from=build /opt/gateway /opt/gateway
COPY --from=build /etc/gateway /etc/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/gateway
# The one place that is written to: jobs, webhooks and deliveries, where SQLite keeps them.
VOLUME /var/lib/gateway
EXPOSE 8080 9901
# The admin listener, as the process sees it; GATEWAY_ADMIN_URL names another address.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ.get('GATEWAY_ADMIN_URL', 'http://127.0.0.1:9901') + '/health/live', timeout=2)"]
ENTRYPOINT ["gateway", "serve", "--config", "/etc/gateway/gateway.yaml"]
