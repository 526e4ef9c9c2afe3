"""The data: generated lines in the published TSV format, read back with every line checked, in batches of one length.

``python -m tasks.listops data`` writes ``train.tsv``, ``valid.tsv`` and ``test.tsv``, 85,000, 5,000 and 10,000 lines:
the published 90,000 and 10,000, with validation taken from the first. As in the published data no expression occurs
twice. None is in the published test set, whose hashes come with this file, so that a seed's data are the same with
and without it. Lines are drawn until there are enough and then shuffled, so all three files have one law. It is the
published one, but for the shortest expressions: 100,000 lines exhaust those, and a tenth of them is published.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from tasks.common.errors import RunError
from tasks.common.files import locked, write_atomically, write_text

from . import expressions

SIZES = {"train": 85_000, "valid": 5_000, "test": 10_000}
PUBLISHED_HASHES = Path(__file__).parent / "published_test.hashes"
HASH_BYTES = 4
UNFINISHED = ".unfinished"  #: the seed of files that are being generated, until all three are there


class Batch(NamedTuple):
    """Lines of about one length, longest first."""

    tokens: Tensor  # (B, L) int64, 0 behind a line's end
    lengths: Tensor  # (B,) int64, on the CPU
    labels: Tensor  # (B,) int64
    numbers: Tensor  # (B,) int64 on the CPU: which of the Lines

    def to(self, device: str) -> "Batch":
        return Batch(self.tokens.to(device), self.lengths, self.labels.to(device), self.numbers)


@dataclass(frozen=True)
class Lines:
    """Lines of a file, their tokens end to end."""

    texts: Sequence[str]
    tokens: Tensor  # (T,) uint8
    starts: Tensor  # (n,) int64
    lengths: Tensor  # (n,) int64
    labels: Tensor  # (n,) int64

    @classmethod
    def of(cls, texts: Sequence[str], tokens: Sequence[Sequence[int]], labels: Sequence[int]) -> "Lines":
        lengths = torch.tensor([len(line) for line in tokens], dtype=torch.int64)
        flat = torch.frombuffer(bytearray(b"".join(map(bytes, tokens))), dtype=torch.uint8)
        return cls(texts, flat, lengths.cumsum(0) - lengths, lengths, torch.tensor(labels, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.texts)

    def shorter(self, max_tokens: int) -> "Lines":
        """The lines of at most ``max_tokens`` tokens."""
        return self.select((self.lengths <= max_tokens).nonzero().squeeze(1))

    def select(self, index: Tensor) -> "Lines":
        texts = [self.texts[i] for i in index.tolist()]
        return Lines(texts, self.tokens, self.starts[index], self.lengths[index], self.labels[index])

    def batch(self, index: Tensor) -> Batch:
        """The lines of these numbers, which are in order of falling length."""
        lengths = self.lengths[index]
        place = torch.arange(int(lengths[0]))
        inside = place < lengths[:, None]
        tokens = self.tokens[(self.starts[index][:, None] + place).clamp(max=len(self.tokens) - 1)].long()
        return Batch(tokens * inside, lengths, self.labels[index], index)

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch of batches of about one length each, in random order and of random lines."""
        order = torch.randperm(len(self), generator=generator)
        order = order[self.lengths[order].argsort(descending=True, stable=True)]
        batches = order.split(size)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield self.batch(batches[number])

    def in_order(self, max_tokens: int) -> Iterator[Batch]:
        """All lines, longest first, in batches of at most ``max_tokens`` tokens (or one line), for evaluation."""
        order = self.lengths.argsort(descending=True, stable=True)
        while len(order):
            size = max(1, max_tokens // int(self.lengths[order[0]]))
            yield self.batch(order[:size])
            order = order[size:]


def read(path: Path) -> Lines:
    """The lines ``label\\tbracketed expression`` of a file.

    Raises:
        RunError: the file cannot be read or is empty, or a line is wrong; names the file, the line and what is wrong.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read as ListOps lines ({error})") from error
    texts, tokens, labels = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            label, expression = _read_line(line)
            tokens.append(expressions.parse(expression))
            value, _ = expressions.evaluate(tokens[-1])
            if label != str(value):
                raise ValueError(f"label {label!r} does not match the expression's value {value}")
        except ValueError as error:
            raise RunError(f"{path}, line {number}: {error}") from error
        texts.append(expression)
        labels.append(value)
    if not texts:
        raise RunError(f"{path}: is empty, allowed: lines of a label, a tab and a bracketed expression")
    return Lines.of(texts, tokens, labels)


def _read_line(line: str) -> tuple[str, str]:
    label, tab, expression = line.partition("\t")
    if not tab:
        raise ValueError("no tab between label and expression")
    return label, expression


def write(directory: Path, seed: int) -> None:
    """Generate the three files of a seed; :func:`load` goes on if this was interrupted.

    Raises:
        RunError: the directory cannot be written.
    """
    try:
        with locked(directory):
            _write(directory, seed)
    except OSError as error:
        raise RunError(f"{directory}: cannot be written ({error})") from error


def _write(directory: Path, seed: int) -> None:
    write_text(directory / UNFINISHED, str(seed))
    lines = iter(draw(seed, sum(SIZES.values())))
    for name, size in SIZES.items():
        write_atomically(directory / f"{name}.tsv", partial(_write_lines, list(islice(lines, size))))
    (directory / UNFINISHED).unlink()


def _complete(directory: Path) -> None:
    """Generate the files if there are none, or go on where that was interrupted."""
    unfinished, seed = directory / UNFINISHED, 0
    if unfinished.exists():
        try:
            seed = int(unfinished.read_text())
        except ValueError as error:
            raise RunError(f"{unfinished}: not a seed; delete it and *.tsv to start anew: {error}") from error
    elif is_there(directory):  # another command has generated them
        return
    _write(directory, seed)


def _write_lines(lines: Sequence[bytes], file: BinaryIO) -> None:
    for tokens in lines:
        file.write(f"{expressions.evaluate(tokens)[0]}\t{expressions.write(tokens)}\n".encode())


def draw(seed: int, count: int) -> list[bytes]:
    """Tokens of different expressions, none of them in the published test set, in random order."""
    random_number = random.Random(seed)
    published = _published_hashes()
    drawn: set[bytes] = set()
    while len(drawn) < count:
        tokens = bytes(expressions.generate(random_number))
        if tokens not in drawn and digest(tokens) not in published:
            drawn.add(tokens)
    # By a hash of the seed, not in the order of drawing, in which the short expressions come first.
    return sorted(drawn, key=lambda tokens: digest(tokens, seed.to_bytes(8, "big"), 16))


def digest(tokens: bytes, key: bytes = b"", size: int = HASH_BYTES) -> bytes:
    return hashlib.blake2b(tokens, digest_size=size, key=key).digest()


def _published_hashes() -> frozenset[bytes]:
    content = PUBLISHED_HASHES.read_bytes()
    return frozenset(content[i : i + HASH_BYTES] for i in range(0, len(content), HASH_BYTES))


def is_published(lines: Lines) -> bool:
    """Whether these are the published test set."""
    parts = lines.tokens.split(lines.lengths.tolist())
    return {digest(bytes(part.tolist())) for part in parts} == _published_hashes()


class Splits(NamedTuple):
    """What a run trains on, is stopped by and is judged by."""

    train: Lines
    valid: Lines
    test: Lines

    def digest(self) -> str:
        return digest_of(*self)


def digest_of(*parts: Lines) -> str:
    """Short name of the content of some lines."""
    return digest("\n".join("\n".join(lines.texts) for lines in parts).encode(), size=8).hex()


def is_there(directory: Path) -> bool:
    """Whether a directory has one of the files, and is not about to get them."""
    return not (directory / UNFINISHED).exists() and any((directory / f"{name}.tsv").exists() for name in SIZES)


def load(directory: Path, test_file: Path | None = None) -> Splits:
    """The files of ``directory``, generated with seed 0 if it has none; ``test_file`` takes ``test.tsv``'s place.

    Files whose generation was interrupted are generated again, with the seed that they were begun with.

    Raises:
        RunError: a file is missing or damaged, or shares a line with another; it is named.
    """
    paths = [directory / f"{name}.tsv" for name in SIZES]
    if not is_there(directory):
        with locked(directory):  # two first commands generate one set
            _complete(directory)
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise RunError(f"{missing[0]}: does not exist; python -m tasks.listops data --out {directory} writes all three")
    paths[-1] = test_file or paths[-1]
    splits = Splits(*map(read, paths))
    seen: dict[str, str] = {}
    for path, lines in zip(paths, splits, strict=True):
        for number, text in enumerate(lines.texts, 1):
            if (other := seen.setdefault(text, f"{path}, line {number}")) != f"{path}, line {number}":
                raise RunError(f"{path}, line {number}: the same expression as {other}")
    return splits
