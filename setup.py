"""Packages of the wheel. ``triton_kernels`` is a taken name on PyPI, so ours installs inside ``discrete_ops``."""

from setuptools import setup

setup(
    packages=["discrete_ops", "discrete_ops.triton_kernels"],
    package_dir={"discrete_ops.triton_kernels": "triton_kernels"},
)
