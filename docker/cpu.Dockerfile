# syntax=docker/dockerfile:1
# Prediction and small trainings on a CPU, from wheels in the folder `wheels` (see docs/deployment.md):
#   docker build -f docker/cpu.Dockerfile -t scanseg:cpu .
#   docker run --rm --network none --read-only --tmpfs /tmp -v "$PWD/data:/data" scanseg:cpu predict ...
FROM python:3.12-slim
RUN --mount=type=bind,source=wheels,target=/wheels \
    pip install --no-index --no-cache-dir --find-links /wheels "scanseg[cpu]"
ENV NUMBA_CACHE_DIR=/tmp MPLCONFIGDIR=/tmp
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["scanseg"]
CMD ["--help"]
