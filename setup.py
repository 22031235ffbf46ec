"""Installs flown_jax: flow matching on neural network parameters, in JAX."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
INIT = (HERE / "flown_jax" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1)
# The commands and their configs are installed inside of the library's folder: as packages of their
# own, names like theirs would meet other people's. `flown` looks for them there.
COMMANDS = "flown_jax._commands"
OF_COMMANDS = find_packages(include=["experiments", "experiments.*", "configs"])

USPS = ["h5py>=3.11"]  # only for usps.h5
TEST = ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.6", "mypy>=1.11", "tensorboardX>=2.6", *USPS]
TEST += ["PyYAML>=6"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings-python>=1.10"]

setup(
    name="flown_jax",
    version=VERSION,
    description="Flow matching on neural network parameters (FLoWN), in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["flown_jax", "flown_jax.*"]),
        *(f"{COMMANDS}.{name}" for name in OF_COMMANDS),
    ],
    package_dir={f"{COMMANDS}.{top}": top for top in ("experiments", "configs")},
    package_data={
        "flown_jax": ["py.typed"],
        "flown_jax.pretrained": ["*/*.md", "*/*.json", "*/*.safetensors"],
    },
    entry_points={"console_scripts": [f"flown = {COMMANDS}.experiments.cli:main"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.8",
        "flax>=0.12",
        "optax>=0.2.5",
        "diffrax>=0.7.1",
        "orbax-checkpoint>=0.11.20",
        "tensorflow-datasets>=4.9.7",
        "importlib_resources>=6.0",  # tensorflow-datasets needs it and does not declare it
        "jraph>=0.0.6.dev0",
        "ml-collections>=1.0",
        "absl-py>=2.1",
        "numpy>=2.0",
        "scipy>=1.13",
        "scikit-learn>=1.5",
        "POT>=0.9.5",
        "safetensors>=0.5",
        "matplotlib>=3.9",
        "pillow>=10.3",
        "rich>=13.7",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]>=0.8"],
        "docs": DOCS,
        "test": TEST,
        "tpu": ["jax[tpu]>=0.8"],
        "tensorboard": ["tensorboardX>=2.6"],
        "torch": ["torch>=2.4", "timm>=1.0"],
        "usps": USPS,
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
