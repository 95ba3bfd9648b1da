# The quickstart in a container. NOT BUILT YET: written where there is no docker (what was checked: docs/dependencies.md).
#
#   docker build -t unseen .                                  CPU: torch without CUDA
#   docker build -t unseen --build-arg DEVICE=cuda13 .        NVIDIA GPU, driver for CUDA 13 (or cuda12)
#   docker run --rm -v "$PWD/runs:/unseen/runs" unseen        (GPU: docker run --gpus all --shm-size 8g ...)
#   docker run --rm -v "$PWD:/data" unseen python tools/predict.py /data/VIDEO --classes "surfing, archery"
FROM python:3.12-slim
ARG DEVICE=cpu
# torch.compile and Triton call a C++ compiler.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /unseen
COPY . .
# torch in the range of setup.py, else the second line would put the build from PyPI in the place of this one.
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir 'torch>=2.11,<2.16' 'torchvision>=0.26,<0.30' --index-url https://download.pytorch.org/whl/cpu \
           && pip install --no-cache-dir -e . ;; \
      cuda12) pip install --no-cache-dir 'torch>=2.11,<2.16' 'torchvision>=0.26,<0.30' --index-url https://download.pytorch.org/whl/cu126 \
           && pip install --no-cache-dir -e '.[cuda12]' ;; \
      cuda13) pip install --no-cache-dir -e '.[cuda13]' ;; \
      *) echo "DEVICE is '$DEVICE': it must be cpu, cuda12 or cuda13" >&2; exit 1 ;; \
    esac
# A GPU's decoder (NVDEC) is shown to a container only with `video`.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
CMD ["torchrun", "engine/train.py", "configs/quickstart.yaml"]
