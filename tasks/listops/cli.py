"""``python -m tasks.listops data|train|table|parse``. Flags that are not given keep the preset's value."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from discrete_ops import checks
from tasks.common import files
from tasks.common.command import console, exit_status
from tasks.common.errors import RunError
from tasks.common.settings import check_folder, set_threads

from . import data, expressions, parsing, results, tables, train, trees
from .progress import RunProgress
from .recipes import Config, Preset, configure


@dataclass(frozen=True)
class Data:
    """Generate the training, validation and held-out lines; none of them is in the published test set."""

    out: Path = Path("runs/listops/data")
    """Directory of train.tsv, valid.tsv and test.tsv."""
    seed: int = 0
    """Equal seeds give equal files."""

    def run(self, console: Console) -> None:
        if not 0 <= self.seed < 2**63:
            raise RunError(f"seed: got {self.seed}, allowed: an int in [0, 2**63)")
        check_folder("out", self.out)
        data.write(self.out, self.seed)
        console.print(f"written to {self.out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Run:
    """What every run takes."""

    preset: Literal["small", "paper"] = "small"
    """small: hidden 64, lines of up to 30 tokens. paper: "Gapped Straight-Through", hidden 300, up to 100 tokens."""
    hidden: int | None = None
    """Hidden size of the embeddings, both LSTMs and the classifier."""
    max_tokens: int | None = None
    """Longer lines are left out of training, validation and the first test figure."""
    dropout: float | None = None
    """Dropout of the embeddings and the classifier."""
    lr: float | None = None
    """Learning rate of Adam."""
    clip: float | None = None
    """Largest norm of the gradient."""
    batch_size: int | None = None
    """Lines a step."""
    epochs: int | None = None
    """Epochs at most. A finished run goes on from its checkpoint if this is raised."""
    epoch_steps: int | None = None
    """Steps between two validations and checkpoints; all lines once if not given."""
    leaf: Literal["lstm", "affine"] | None = None
    """A token's state at the bottom of the tree: of an LSTM over the line, or an affine map of its embedding alone."""
    trees: Literal["learned", "gold", "left", "right", "random"] | None = None
    """Learned with the estimator; or given, to compare with: the expression's own, left- or right-branching, or any."""
    patience: int | None = None
    """Stop after so many epochs without a better validation accuracy."""
    device: str = "cpu"
    """As torch names it: cpu, cuda, cuda:1."""
    backend: str | None = None
    """Backend of discrete_ops; the device's default if not given."""
    data_dir: Path = Path("runs/listops/data")
    """Directory of train.tsv, valid.tsv and test.tsv; generated there if it has none of them."""
    test_file: Path | None = None
    """Test lines in place of the generated test.tsv: the published test_d20s.tsv."""
    tensorboard: bool = False
    """Write TensorBoard's event files to --out too."""
    threads: int | None = None
    """Threads of torch; its own default if not given."""

    def config(self, estimator: str, seed: int, **hyper_parameters: Any) -> Config:
        flags = {name: getattr(self, name) for name in (field.name for field in fields(Preset)) if hasattr(self, name)}
        return configure(self.preset, estimator, seed, self.device, self.backend, **{**flags, **hyper_parameters})

    def splits(self, console: Console) -> data.Splits:
        set_threads(self.threads)
        if not data.is_there(self.data_dir):
            check_folder("data_dir", self.data_dir)
            names = ", ".join(f"{name}.tsv" for name in data.SIZES)
            text = f"{self.data_dir} has none of {names}, or not all: generating them"
            console.print(text, highlight=False, soft_wrap=True)
        return data.load(self.data_dir, self.test_file)

    def fit(
        self, config: Config, splits: data.Splits, out: Path, console: Console, resume: bool = True
    ) -> train.Trainer:
        with RunProgress(console, out.name) as progress:
            trainer = train.fit(
                config,
                splits,
                out,
                resume=resume,
                tensorboard=self.tensorboard,
                on_step=progress.on_step,
                on_epoch=progress.on_epoch,
                on_start=progress.on_start,
            )
        self.draw(trainer, out)
        return trainer

    def draw(self, trainer: train.Trainer, out: Path) -> None:
        from . import plots  # matplotlib is slow to import

        plots.curves(trainer.history, out / "curves.png")
        parsing.draw_example(trainer.best_model(), trainer.config, trainer.valid, out / "trees.png")


@dataclass(frozen=True)
class Train(Run):
    """Train one Gumbel Tree-LSTM and write its metrics, checkpoint, test figures and pictures to a directory.

    Estimators: straight_through, gumbel_softmax, gumbel_rao, gst, reinmax, reinmax_argmax, reinmax_rao,
    reinmax_cv, reinmax_rk2, mix, mve.
    """

    seed: int = 0
    """Of the weights, the order of the data and the noise."""
    estimator: str = "gst"
    """Gradient estimator, by the name of its function in discrete_ops."""
    tau: float | None = None
    """Temperature."""
    gap: float | Literal["pi"] | None = None
    """Gap of gst; pi is the expected gap of Lemma 1."""
    eta: float | None = None
    """Weight of reinmax_cv's control variate."""
    num_samples: int | None = None
    """Monte-Carlo draws K of gumbel_rao, reinmax_rao and reinmax_cv."""
    out: Path | None = None
    """Directory of the run; default runs/listops/PRESET-ESTIMATOR-SEED."""
    resume: bool = True
    """Go on from the checkpoint in --out, if there is one; otherwise start anew, over what lies there."""

    def run(self, console: Console) -> None:
        config = self.config(self.estimator, self.seed)
        out = self.out or Path("runs/listops") / f"{self.preset}-{self.estimator}-{self.seed}"
        check_folder("out", out)
        self.fit(config, self.splits(console), out, console, self.resume)
        console.print(f"{(out / 'result.json').read_text()}written to {out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class TableOf(Run):
    """Print a table of the paper with our figures beside it, after training what is missing of it."""

    name: Annotated[Literal["gst-6"], tyro.conf.Positional] = "gst-6"
    """gst-6: "Gapped Straight-Through", Table 6: STGS, GR-MC100 and GST of four gaps at tau = 1, 0.1 and 0.01."""
    columns: tuple[str, ...] | None = None
    """Which columns to train, say tau=0.1; all if not given."""
    methods: tuple[str, ...] | None = None
    """Which rows to train, say GST-1.0, in this order; all if not given."""
    seeds: int = 1
    """How many seeds, from 0: of the weights, the order of the data and the noise. The paper has five."""
    out: Path | None = None
    """Directory of the runs, one directory each; default runs/listops/NAME-PRESET, or NAME-PRESET-DEVICE."""
    results: Path | None = None
    """Directory of NAME-PRESET.jsonl, one line a run that has ended, which is not trained again, and of NAME-PRESET.md,
    in whose name stands what is not the preset's; --out if not given."""
    train: bool = True
    """Train the runs that are missing or were interrupted; otherwise print what there is."""

    def run(self, console: Console) -> None:
        out = self.out or files.for_device(Path("runs/listops") / f"{self.name}-{self.preset}", self.device)
        path = (self.results or out) / f"{self.name}-{self.preset}.jsonl"
        check_folder("out", out)
        check_folder("results", path.parent)
        chosen = tuple(
            tables.cells(
                _some("methods", self.methods, tables.methods(self.name)),
                _some("columns", self.columns, tables.columns(self.name)),
                _count("seeds", self.seeds),
            )
        )
        configs = [self.config(cell.estimator, cell.seed, **cell.hyper_parameters) for cell in chosen]
        settings = results.settings(configs[0])
        plain = configure(self.preset, configs[0].estimator, 0, self.device, self.backend, **chosen[0].hyper_parameters)
        # A run to try it out takes neither the report's place nor the paper's figures.
        other = {name: settings[name] for name, usual in results.settings(plain).items() if settings[name] != usual}
        report = path.with_name(path.stem + "".join(f"-{name}={value}" for name, value in other.items()) + ".md")
        with files.leaving_occupied() as piece:
            splits = self.splits(console) if self.train else None
            if splits:
                self.train_missing(dict(zip(chosen, configs, strict=True)), splits, out, path, console, piece)
            found = [
                result
                for result in results.read(path)
                if result.settings == settings and (splits is None or result.data == splits.digest())
            ]
            tables.show(self.name, found, report, console, compare=not other)

    def train_missing(
        self,
        configs: dict[tables.Cell, Config],
        splits: data.Splits,
        out: Path,
        path: Path,
        console: Console,
        piece: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Train the cells of which ``path`` has no result, and add theirs one by one."""
        digest, is_published = splits.digest(), data.is_published(splits.test)

        def is_known(cell: tables.Cell) -> bool:
            settings = results.settings(configs[cell])
            return any(
                tables.Cell(r.column, r.method, r.seed) == cell and r.settings == settings and r.data == digest
                for r in results.read(path)
            )

        for cell, config in configs.items():
            if is_known(cell):
                continue
            with piece():
                directory = cell.directory(out)
                trainer = self.fit(config, splits, directory, console)
                result = results.Result.of(
                    config,
                    table=self.name,
                    column=cell.column,
                    method=cell.method,
                    data=digest,
                    is_published=is_published,
                    figures=files.read_json(directory / "result.json"),
                    history=trainer.history,
                )
                results.add(path, result)


def _some(name: str, chosen: tuple[str, ...] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(checks.choice(name, value, allowed) for value in chosen) if chosen else allowed
    except ValueError as error:
        raise RunError(str(error)) from error


def _count(name: str, value: int) -> int:
    try:
        return checks.count(name, value)
    except ValueError as error:
        raise RunError(str(error)) from error


@dataclass(frozen=True)
class Parse:
    """Parse an expression with a trained model: bracketed trees, their labels, and a picture."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Directory of a run of train."""
    expression: Annotated[str, tyro.conf.Positional]
    """Such as '[MAX 2 9 [MIN 4 7 ] 0 ]', with or without the gold tree's brackets."""
    samples: int = 0
    """Sampled trees beside the greedy one."""
    seed: int = 0
    """Of the samples."""
    picture: Path | None = None
    """Also draw the trees to this file."""

    def run(self, console: Console) -> None:
        if self.samples < 0:
            raise RunError(f"samples: got {self.samples}, allowed: an int from 0")
        tokens = parsing.read_expression(self.expression)
        if self.picture:
            check_folder("picture", self.picture.parent)
            if self.picture.is_dir():
                raise RunError(f"picture: got {self.picture}, allowed: a file; it is a directory")
        model, config = parsing.load(self.run_dir)
        found = parsing.parses(model, config, tokens, self.samples, self.seed)
        gold = expressions.write(tokens)
        lines = [f"gold: {expressions.evaluate(tokens)[0]}\n{gold}"]
        beside = parsing.baselines(trees.gold_spans(gold))
        for parse in found:
            f1 = trees.f1(trees.spans(parse.merges), trees.gold_spans(gold))
            words = [expressions.TOKENS[token] for token in tokens]
            lines.append(
                f"{parse.title}: {parse.label}, parse F1 {f1:.2f} ({beside})\n{trees.bracketed(words, parse.merges)}"
            )
        console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
        if self.picture:
            self.picture.parent.mkdir(parents=True, exist_ok=True)
            parsing.draw(tokens, found, self.picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    command = tyro.cli(
        Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[TableOf, tyro.conf.subcommand("table")]
        | Annotated[Parse, tyro.conf.subcommand("parse")],
        prog="python -m tasks.listops",
        description="ListOps: unsupervised parsing with a straight-through Tree-LSTM (Table 6 of the GST paper).",
        args=arguments,
    )
    return exit_status(lambda: command.run(console()))
