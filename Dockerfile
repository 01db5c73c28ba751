# One image for heads, workers, submitters, launchers and the MLflow server of k8s/components/mlflow-dev.
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t hpsearch .
# The default index has torch's build for GPUs; for the smaller one without them, or another CUDA, name the
# index of PyTorch's wheels: --build-arg TORCH_INDEX=URL.
ARG BASE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${BASE} AS build
ARG TORCH_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/hpsearch
COPY constraints.txt ./
# First, so that nothing that needs torch picks another build of it.
RUN /opt/hpsearch/bin/pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY hpsearch hpsearch
# cluster: Ray's agent, which serves probes and jobs. server: the login of the MLflow server. gcs, s3: --storage.
RUN /opt/hpsearch/bin/pip install --no-cache-dir --constraint constraints.txt \
        ".[cluster,examples,gcs,postgresql,s3,server]" && \
    /opt/hpsearch/bin/pip uninstall --yes pip

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hpsearch" \
      org.opencontainers.image.description="Distributed hyperparameter search" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What runs is what was built: nothing is installed later. A login shell has its own idea of PATH.
RUN python -m pip uninstall --yes pip && \
    useradd --uid 10001 --user-group --create-home --home-dir /home/hpsearch --shell /bin/bash hpsearch && \
    echo "export PATH=/opt/hpsearch/bin:\$PATH" >/etc/profile.d/hpsearch.sh
COPY --from=build /opt/hpsearch /opt/hpsearch
ENV PATH=/opt/hpsearch/bin:$PATH \
    HOME=/home/hpsearch \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HPSEARCH_GIT_SHA=${REVISION}
WORKDIR /home/hpsearch
# By number: Kubernetes cannot tell whether a name is root.
USER 10001:10001
# The operator overrides it for Ray's own containers.
ENTRYPOINT ["hpsearch"]
