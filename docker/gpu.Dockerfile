# syntax=docker/dockerfile:1
# Training and prediction on an NVIDIA GPU, from wheels in the folder `wheels` (see docs/deployment.md), with the
# CUDA build of PyTorch. The host has the driver and the NVIDIA container toolkit:
#   docker build -f docker/gpu.Dockerfile -t scanseg:gpu .
#   docker run --rm --gpus all --network none --shm-size 2g --tmpfs /tmp -v "$PWD/data:/data" scanseg:gpu train ...
FROM python:3.12-slim
# Triton builds its driver module once, with the C compiler of the system.
RUN apt-get update \
    && apt-get install --no-install-recommends -y gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,source=wheels,target=/wheels \
    pip install --no-index --no-cache-dir --find-links /wheels "scanseg"
ENV MPLCONFIGDIR=/tmp TRITON_CACHE_DIR=/tmp/triton XDG_CACHE_HOME=/tmp/cache
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["scanseg"]
CMD ["--help"]
