"""Data files: downloaded by their hash, damaged, and others under a run that goes on."""

import contextlib
import gzip
import hashlib
import http.server
import os
import random
import shutil
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from tasks.common.errors import RunError
from tasks.vae import data as vae_data

from . import tiny_runs
from .record import Line
from .tally import Tally
from .tiny_runs import TRAIN, Command, Process

TRAIN_FILE, TEST_FILE = vae_data.MNIST_FILES


def run(flips: int) -> list[Line]:
    tiny_runs.warm()
    with TemporaryDirectory() as folder:
        published = _published(Path(folder) / "published")
        return [
            _downloaded(published, Path(folder)),
            _given(published, Path(folder)),
            _damaged(published / TEST_FILE, Path(folder) / TEST_FILE, flips),
            _resumed(Path(folder)),
        ]


def _published(folder: Path) -> Path:
    """Files in MNIST's format, of a few random images."""
    folder.mkdir()
    for name, count in ((TRAIN_FILE, 300), (TEST_FILE, 20)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (folder / name).write_bytes(gzip.compress(header + pixels.tobytes(), mtime=0))
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (TRAIN_FILE, TEST_FILE)}


# ---------------------------------------------------------------------------------------------------
# Downloads


class Server(NamedTuple):
    """Where files are served here, and how many were asked for."""

    url: str
    asked: list[str]


@contextlib.contextmanager
def _serving(folder: Path, cut: int = 0, pause: float = 0.0) -> Iterator[Server]:
    """Serve a folder; of each file ``cut`` bytes are missing at the end, after half of it there is a pause."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = (folder / self.path.lstrip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            with contextlib.suppress(OSError):  # the other end was killed
                self.wfile.write(content[:half])
                time.sleep(pause)
                self.wfile.write(content[half : len(content) - cut])

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}/", asked)
        finally:
            server.shutdown()
            thread.join()


def _loading(url: str, hashes: dict[str, str], cache: Path, load: Callable[..., vae_data.Images]) -> None:
    """In the process of a command: the data set comes from ``url``."""
    os.environ.update(XDG_CACHE_HOME=str(cache), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    vae_data.MNIST_URL = url
    vae_data.MNIST_FILES = hashes
    vae_data.load = load


def _downloaded(published: Path, folder: Path) -> Line:
    """Every way in which a download can go wrong, then a right one into the same cache."""
    tally = Tally(
        "Downloads",
        "commands",
        "what has the published sha256 is taken, all else refused with the file's name, the cause and, of a wrong "
        "file, both hashes; nothing of it stays",
    )
    command = TRAIN["vae"].longer("--data=mnist", "--epochs=1")
    hashes, load = _hashes(published), vae_data.load
    other = folder / "other"
    shutil.copytree(published, other)
    (other / TRAIN_FILE).write_bytes((published / TEST_FILE).read_bytes())
    cache, out = folder / "cache", folder / "downloaded"
    kept = cache / "discrete-ops" / "mnist"

    def prepare(url: str) -> Callable[[], None]:
        return partial(_loading, url, hashes, cache, load)

    def refused(case: str, url: str, *told: str) -> None:
        status, text = tiny_runs.run(command, out, prepare(url))
        lines = [
            line for line in text.splitlines() if line.startswith(f"error: {kept / TRAIN_FILE}: could not download")
        ]
        wrong = (
            [] if status == 1 and len(lines) == 1 and "Traceback" not in text else [f"status {status}: {text[-400:]}"]
        )
        wrong += [f"does not say {part}" for part in told if lines and part not in text]
        tally.note(case, *wrong, *_leftover(kept, hashes))

    def taken(case: str, server: Server, requests: int) -> None:
        status, text = tiny_runs.run(command, out, prepare(server.url))
        wrong = [] if status == 0 else [f"status {status}: {text[-400:]}"]
        if len(server.asked) != requests:
            wrong.append(f"asked for {server.asked}")
        tally.note(case, *wrong, *_leftover(kept, hashes))
        shutil.rmtree(out, ignore_errors=True)

    with _serving(other) as server:
        refused("another file", server.url, hashes[TRAIN_FILE], hashes[TEST_FILE])
    with _serving(published, cut=100) as server:
        refused("cut short", server.url)
    refused("no server", "http://127.0.0.1:9/")
    with _serving(published, pause=60) as server:  # it is killed in the middle, whenever that is
        process = Process(command, out, prepare(server.url))
        deadline = time.monotonic() + 30
        while not (server.asked and any(kept.glob("tmp*"))) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.signal(signal.SIGKILL)
        process.end()
        tally.note("killed", *([] if any(kept.glob("tmp*")) else ["not while it was at it"]))
    with _serving(published) as server:
        taken("after one that was killed", server, 2)
        taken("the second time", server, 2)
        (kept / TRAIN_FILE).write_bytes(b"damaged")
        taken("after what was kept was damaged", server, 3)
    (kept / TRAIN_FILE).write_bytes(b"damaged")
    digest = hashlib.sha256(b"damaged").hexdigest()
    status, text = tiny_runs.run(command, out, prepare("http://127.0.0.1:9/"))
    is_told = status == 1 and f"what is there has another sha256, {digest}" in text
    tally.note("what was kept is damaged, no server", *([] if is_told else [f"status {status}: {text[-400:]}"]))
    shutil.rmtree(cache)
    with _serving(published, pause=0.2) as server:
        both = [Process(command, folder / f"at-once-{number}", prepare(server.url)) for number in range(2)]
        ends = [process.end() for process in both]
        wrong = [f"status {status}: {text[-400:]}" for status, text in ends if status]
        wrong += [f"asked for {server.asked}"] if len(server.asked) != 2 else []
        tally.note("two commands at once", *wrong, *_leftover(kept, hashes))
    return tally.line("another file, cut short, no server, killed, damaged since, two commands at once")


def _leftover(kept: Path, hashes: dict[str, str]) -> list[str]:
    """What a cache should not have."""
    wrong = []
    for path in kept.glob("*") if kept.exists() else []:
        if path.name not in hashes:
            wrong += [] if path.name == ".lock" else [f"{path.name} stays"]
        elif hashlib.sha256(path.read_bytes()).hexdigest() != hashes[path.name]:
            wrong.append(f"{path.name} is another")
    return wrong


# ---------------------------------------------------------------------------------------------------
# Files that are given


def _given(published: Path, folder: Path) -> Line:
    tally = Tally(
        "Wrong files in --data-dir",
        "commands",
        "status 1 and one line with the file's name and, of another one, both hashes",
    )
    hashes, given = _hashes(published), folder / "given"
    command = TRAIN["vae"].longer("--data=mnist", f"--data-dir={given}", "--epochs=1")
    whole = (published / TEST_FILE).read_bytes()
    kinds: dict[str, bytes | None] = {
        "missing": None,
        "empty": b"",
        "cut short": whole[:-9],
        "one other byte": bytes([*whole[:40], whole[40] ^ 1, *whole[41:]]),
        "the other file": (published / TRAIN_FILE).read_bytes(),
        "not compressed": gzip.decompress(whole),
    }
    for kind, content in kinds.items():
        shutil.copytree(published, given)
        (given / TEST_FILE).unlink()
        told = ["does not exist"]
        if content is not None:
            (given / TEST_FILE).write_bytes(content)
            told = [hashlib.sha256(content).hexdigest(), hashes[TEST_FILE]]
        prepare = partial(_loading, "", hashes, folder, vae_data.load)
        status, text = tiny_runs.run(command, folder / "out", prepare)
        is_told = status == 1 and text.count(str(given / TEST_FILE)) == 1 and "Traceback" not in text
        wrong = [] if is_told and all(part in text for part in told) else [f"status {status}: {text[-400:]}"]
        tally.note(kind, *wrong)
        shutil.rmtree(given)
    return tally.line(", ".join(kinds))


def _damaged(whole: Path, path: Path, flips: int) -> Line:
    """An idx.gz file, read whatever its hash: cut short or one byte changed, at places all over it."""
    tally = Tally("A damaged idx.gz file, its hash not asked", "files", "refused by its name, or the same images")
    content, images, refused = whole.read_bytes(), vae_data.read_idx(whole), 0
    values = random.Random(0)
    places = [number * len(content) // flips for number in range(flips)]
    flipped = (content[:at] + bytes([content[at] ^ values.randrange(1, 256)]) + content[at + 1 :] for at in places)
    header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    others = {
        "another magic number": b"\0\0\x0d\x03" + header[4:] + images.tobytes(),
        "one image too many said": struct.pack(">4B3I", 0, 0, 8, 3, len(images) + 1, 8, 8) + images.tobytes(),
        "one image too few said": struct.pack(">4B3I", 0, 0, 8, 3, len(images) - 1, 8, 8) + images.tobytes(),
        "a header cut short": header[:9],
        "nothing": b"",
    }
    cases = {f"{at} bytes": content[:at] for at in places}
    cases |= {f"byte {at}": damaged for at, damaged in zip(places, flipped, strict=True)}
    cases |= {name: gzip.compress(raw) for name, raw in others.items()}
    for case, damaged in cases.items():
        path.write_bytes(damaged)
        try:
            wrong = [] if np.array_equal(vae_data.read_idx(path), images) and case not in others else ["other images"]
        except RunError as error:
            wrong = [] if str(error).startswith(f"{path}: ") else [str(error)]
            refused += 1
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        tally.note(case, *wrong)
    return tally.line(f"{refused} refused, {tally.count - refused} read as the same images")


# ---------------------------------------------------------------------------------------------------
# Other data under a run


def _resumed(folder: Path) -> Line:
    tally = Tally(
        "Other data under a run that goes on",
        "commands",
        "status 1 and one line with the checkpoint's name, which data it is and both hashes; the run is as it was; "
        "with its own data it goes on",
    )
    for part in vae_data.Images._fields:
        out = folder / f"vae-{part}"
        command = TRAIN["vae"]
        tiny_runs.succeed(command.longer("--epochs=1"), out)
        _refuses(tally, command.longer("--epochs=2"), out, f"{part} images", partial(_change_images, part))
    for part in ("train", "valid"):
        out = folder / f"listops-{part}"
        command = TRAIN["listops"]
        tiny_runs.succeed(command.longer("--epochs=1"), out)
        path = out / "lines" / f"{part}.tsv"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[1:], lines[0]]))  # the same lines, in another order
        _refuses(tally, command.longer("--epochs=2"), out, path.name)
        path.write_text("".join(lines))
        _goes_on(tally, command.longer("--epochs=2"), out)
    return tally.line("training and test images, training and validation lines, which were only in another order")


def _refuses(
    tally: Tally, command: Command, out: Path, name: str, prepare: Callable[[], object] = tiny_runs.nothing
) -> None:
    before = tiny_runs.contents(out)
    status, text = tiny_runs.run(command, out, prepare)
    told = f"error: {out / 'checkpoint.pt'}: belongs to other data, by its hash: {name} has "
    wrong = [] if status == 1 and told in text and " there and " in text else [f"status {status}: {text[-400:]}"]
    wrong += ["files were changed"] if tiny_runs.contents(out) != before else []
    tally.note(f"{command.name}: {name}", *wrong)
    if prepare is not tiny_runs.nothing:
        _goes_on(tally, command, out)


def _goes_on(tally: Tally, command: Command, out: Path) -> None:
    status, text = tiny_runs.run(command, out)
    is_on = status == 0 and "resumed at epoch 2 of 2" in text
    tally.note(f"{command.name}: with its own data", *([] if is_on else [f"status {status}: {text[-400:]}"]))


def _change_images(part: str) -> None:
    """In the process of a command: the last bit of a pixel."""
    images = tiny_runs.images()
    changed = getattr(images, part).clone()
    changed.view(torch.int32)[7, 7] ^= 1
    vae_data.load = lambda name, data_dir=None: images._replace(**{part: changed})
