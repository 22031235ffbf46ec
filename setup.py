"""Installs flown_jax: flow matching on neural network parameters, in JAX."""

import pathlib

from setuptools import find_packages, setup

USPS = ["h5py>=3.11"]  # only for usps.h5
TEST = ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.6", "mypy>=1.11", "tensorboardX>=2.6", *USPS]

setup(
    name="flown_jax",
    version="0.1.0",
    description="Flow matching on neural network parameters (FLoWN), in JAX",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["flown_jax", "flown_jax.*"]),
    package_data={"flown_jax": ["py.typed"]},
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
        "test": TEST,
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
