# simsiam_tf and its commands, for a user without rights; caches lie in the volume /cache.
#   docker build -t simsiam-tf:0.2.0 .
#   docker build -t simsiam-tf:0.2.0-gpu --build-arg EXTRAS=gpu,viz,parquet,remote .
#   docker run --rm -v simsiam-cache:/cache -v "$PWD:/work" --user "$(id -u)" simsiam-tf:0.2.0 \
#     pretrain --flagfile=flags/folder.cfg --data=folder:photos --workdir=runs/photos
# The GPU's image holds CUDA; it needs the driver and NVIDIA's container toolkit, and --gpus all.
FROM python:3.12.12-slim-trixie AS wheel
WORKDIR /src
COPY LICENSE README.md pyproject.toml setup.py ./
COPY flags flags
COPY simsiam_tf simsiam_tf
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12.12-slim-trixie
ARG EXTRAS=viz,parquet,remote
ENV XDG_CACHE_HOME=/cache KERAS_HOME=/cache/keras TFDS_DATA_DIR=/cache/tensorflow_datasets \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TF_CPP_MIN_LOG_LEVEL=2
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/*.whl)[$EXTRAS]" \
    && useradd --uid 1000 --create-home simsiam \
    && install -d -m 1777 /cache /work
USER 1000
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["python", "-m", "simsiam_tf"]
CMD ["--help"]
