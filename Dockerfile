# The quickstart in a container. Written where there is no docker: NOT YET TRIED.
#
#   docker build -t unseen .                                  CPU: torch without CUDA
#   docker build -t unseen --build-arg DEVICE=cuda13 .        NVIDIA GPU, driver for CUDA 13 (or cuda12)
#   docker run --rm -v "$PWD/runs:/unseen/runs" unseen        (GPU: docker run --gpus all --shm-size 8g ...)
#   docker run --rm -v "$PWD:/data" unseen python tools/predict.py /data/VIDEO --classes "surfing, archery"
FROM python:3.12-slim
ARG DEVICE=cpu
WORKDIR /unseen
COPY . .
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
           && pip install --no-cache-dir -e . ;; \
      cuda12) pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cu126 \
           && pip install --no-cache-dir -e '.[cuda12]' ;; \
      cuda13) pip install --no-cache-dir -e '.[cuda13]' ;; \
      *) echo "DEVICE is '$DEVICE': it must be cpu, cuda12 or cuda13" >&2; exit 1 ;; \
    esac
# A GPU's decoder (NVDEC) is shown to a container only with `video`.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
CMD ["torchrun", "engine/train.py", "configs/quickstart.yaml"]
