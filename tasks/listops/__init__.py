"""ListOps: unsupervised parsing with a straight-through Tree-LSTM. ``python -m tasks.listops --help``."""
