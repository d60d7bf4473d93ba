# Two images: `service`, without torch, and `offline`, which trains and publishes.
#
#   docker build --target service --tag tandem .
#   docker build --target offline --tag tandem-offline .

# The full image has the compiler that annoy and hnswlib are built with.
FROM python:3.11 AS builder
# hnswlib for every machine of this kind, not only for the one that builds the image.
ENV HNSWLIB_NO_NATIVE=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE tandem.py ./
COPY contract contract
COPY offline offline
COPY service service
COPY recipes recipes
COPY benchmarks benchmarks
RUN pip wheel --no-cache-dir -c constraints.txt --wheel-dir /wheels/service '.[annoy,hnswlib,milvus,redis]'

FROM builder AS offline-builder
RUN pip wheel --no-cache-dir -c constraints.txt --find-links /wheels/service \
    --wheel-dir /wheels/offline '.[offline,annoy,hnswlib,milvus,redis]'

FROM python:3.11-slim AS base
# OpenMP, which FAISS and torch load.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
# A new volume takes the owner of the directory that it is mounted on.
RUN useradd --uid 10001 --create-home tandem \
    && install --directory --owner tandem /var/lib/tandem/store /var/lib/tandem/state
ENV TANDEM_STORE=/var/lib/tandem/store \
    TANDEM_STATE=/var/lib/tandem/state \
    PYTHONUNBUFFERED=1
WORKDIR /home/tandem

FROM base AS offline
RUN --mount=type=bind,from=offline-builder,source=/wheels/offline,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'tandem-recall[offline,annoy,hnswlib,milvus,redis]'
COPY recipes recipes
USER tandem
CMD ["tandem", "doctor"]

FROM base AS service
RUN --mount=type=bind,from=builder,source=/wheels/service,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'tandem-recall[annoy,hnswlib,milvus,redis]'
ENV TANDEM_HOST=0.0.0.0 \
    TANDEM_PORT=8000
USER tandem
VOLUME ["/var/lib/tandem/store", "/var/lib/tandem/state"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['TANDEM_PORT'] + '/healthz', timeout=2)"]
CMD ["tandem", "serve"]
