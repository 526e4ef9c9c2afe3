"""Discrete variational auto-encoders: the experiments of both papers. ``python -m tasks.vae --help``."""
