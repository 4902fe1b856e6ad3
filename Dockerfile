# The workbench for a CPU (and for CUDA with `docker run --gpus all`).
#
#   docker build -t mtan .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" mtan quickstart --out quickstart
#
# The steps below were tried by hand in a clean virtual environment of Python 3.11, as no Docker engine was at hand.
# An image without CUDA's libraries is much smaller: give PyTorch's index of CPU wheels (see pytorch.org, "Get started")
# as --build-arg PIP_EXTRA_INDEX_URL=...; the pinned version is then taken from there. That was not tried.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /opt/mtan
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mtan_core mtan_core
COPY decathlon decathlon
COPY dense_tasks dense_tasks
COPY experiments experiments
RUN pip install -c constraints.txt .

# Any user may run it: it writes only below /work (mount a folder there) and /tmp.
RUN useradd --create-home --uid 1000 mtan
USER mtan
WORKDIR /work
ENTRYPOINT ["mtan"]
CMD ["--help"]
