# aii in a container, for machines with and without a GPU:
#
#   docker build -t aii .
#   docker build -t aii:cuda --build-arg VARIANT=cuda .
#
# docker-compose.yml starts either.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG VARIANT=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/aii
ENV PATH=/opt/aii/bin:$PATH
WORKDIR /source
# PyTorch by itself, since it is by far the largest layer and changes least. PyPI's build brings
# CUDA along; the one for the processor alone is on PyTorch's own index.
COPY constraints.txt ./
RUN case "${VARIANT}" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "VARIANT is ${VARIANT}; wanted is cpu or cuda" >&2; exit 1 ;; \
    esac && \
    pip install --constraint constraints.txt --extra-index-url "${index}" torch
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY assets assets
COPY aii aii
RUN pip install --constraint constraints.txt '.[fast,web,metrics,telephony,vad]'

FROM python:${PYTHON}
# ffmpeg is for uploaded recordings that are neither WAV nor raw SLIN.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ffmpeg && \
    rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin aii && \
    install --directory --owner=aii --group=aii /models/whisper
COPY --from=build /opt/aii /opt/aii
# Downloaded models are kept in /models/whisper. In a container loopback cannot be reached from
# outside, so both listeners take any address; which of them the host passes on is its decision.
ENV PATH=/opt/aii/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/models \
    AII_HOST=0.0.0.0 \
    AII_PORT=8300 \
    AII_WEB_PORT=8000
USER 10001:10001
WORKDIR /home/aii
VOLUME /models
EXPOSE 8300 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["aii", "health"]
ENTRYPOINT ["aii"]
CMD ["serve"]
