"""Grey images in [0, 1], whole in memory: ``digits`` (embedded in scikit-learn) and ``mnist``."""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.common import files
from tasks.common.errors import RunError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
#: The files with the images and their sha256. The labels are no part of this task.
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "7ff28fd295f802eefc6d40e461175dfe4b969b1842b2abc8c6dc8c20711cf79f",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
}
DIGITS_TRAIN = 1500  #: of the 1797 images; the other 297 are the test set


class Images(NamedTuple):
    """A data set of square images."""

    train: Tensor  # (n, P) float32 in [0, 1]
    test: Tensor  # (m, P)

    @property
    def pixels(self) -> int:
        return self.train.shape[1]


Source = Callable[[], Images]  #: of a data set that is read when it is needed


def load(name: str, data_dir: Path | None = None) -> Images:
    """A data set by name.

    Args:
        name: ``digits`` or ``mnist``.
        data_dir: directory with MNIST's idx.gz files; None downloads them once into the user's cache.

    Raises:
        RunError: a file is missing, wrong or truncated (it is named), or cannot be downloaded.
    """
    if name == "mnist":
        train, test = (_mnist_file(file, data_dir) for file in MNIST_FILES)
        return Images(_scaled(read_idx(train), 255), _scaled(read_idx(test), 255))
    if data_dir is not None:
        raise RunError(f"data_dir: got {str(data_dir)!r} with data {name!r}, allowed with data 'mnist'")
    return _digits()


def digest(images: Tensor) -> str:
    """A short name of the content of some images, on whatever device and in whatever type they are."""
    return hashlib.sha256(images.cpu().float().numpy().tobytes()).hexdigest()[:16]


def read_idx(path: Path) -> np.ndarray:
    """The array of a gzipped idx file of unsigned bytes.

    Layout: two zero bytes, type (8: uint8), number of dimensions, each dimension as a big-endian uint32, data.

    Raises:
        RunError: the file is not readable as such; it is named.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:  # gzip raises any of them, by where the damage is
        raise RunError(f"{path}: not a readable gzip file, truncated or damaged ({error})") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise RunError(f"{path}: not an idx file of unsigned bytes (starts with {raw[:4].hex() or 'nothing'})")
    header = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:header]) if len(raw) >= header else ()
    expected = header + math.prod(shape)
    if len(raw) != expected:
        raise RunError(f"{path}: truncated or damaged idx file: {len(raw)} bytes, its header says {expected}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _scaled(images: np.ndarray, white: int) -> Tensor:
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / np.float32(white))


def _digits() -> Images:
    from sklearn.datasets import load_digits  # slow to import

    images = _scaled(load_digits().data, 16)
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return Images(images[:DIGITS_TRAIN], images[DIGITS_TRAIN:])


def _mnist_file(name: str, data_dir: Path | None) -> Path:
    """Path of one file of MNIST whose hash is right."""
    if data_dir is None:
        return _download(name)
    path = data_dir / name
    if not path.is_file():
        raise RunError(f"data_dir: {path} does not exist, allowed: a directory with {', '.join(MNIST_FILES)}")
    found = _sha256(path)
    if found != MNIST_FILES[name]:
        raise RunError(
            f"{path}: not the published file, or truncated: sha256 is {found}, expected {MNIST_FILES[name]}; "
            f"fetch it from {MNIST_URL}{name}"
        )
    return path


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def _download(name: str) -> Path:
    import pooch

    path = pooch.os_cache("discrete-ops") / "mnist" / name
    if path.is_file() and _sha256(path) == MNIST_FILES[name]:
        return path
    try:
        with files.locked(path.parent):  # two first commands fetch it once
            for unfinished in path.parent.glob("tmp*"):  # pooch's, of a command that was killed
                unfinished.unlink()
            pooch.retrieve(MNIST_URL + name, f"sha256:{MNIST_FILES[name]}", fname=name, path=path.parent)
    except (OSError, ValueError) as error:  # no network (requests' errors are OSErrors), or a wrong hash
        wrong = f", and what is there has another sha256, {_sha256(path)}" if path.is_file() else ""
        raise RunError(f"{path}: could not download {MNIST_URL}{name}{wrong}; give --data-dir: {error}") from error
    return path
