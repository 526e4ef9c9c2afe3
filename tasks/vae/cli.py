"""``python -m tasks.vae train|demo|table|figure|sweep``. Flags that are not given keep the recipe's value."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from tasks.common.command import console, exit_status
from tasks.common.settings import check_folder, set_threads

from . import data, demo, train
from .commands import FigureCommand, SweepCommand, TableCommand
from .parallel import Accelerated, Alone
from .progress import RunProgress
from .recipes import Config, configure


@dataclass(frozen=True)
class Train:
    """Train one discrete VAE and write its metrics, checkpoint and pictures to a directory.

    Estimators: straight_through, gumbel_softmax, gumbel_rao, gst, reinmax, reinmax_argmax, reinmax_rao,
    reinmax_cv, reinmax_rk2, mix, mve; score functions: rloo, disarm_tree.
    """

    estimator: str = "reinmax"
    """Gradient estimator, by the name of its function in discrete_ops."""
    recipe: str = "br"
    """br: "Beyond ReinMax", Tables 2-4. gst: "Gapped Straight-Through", Tables 2, 3 and 7. disarm: its Table 4."""
    latent: str | None = None
    """Categories x latents of the code. Recipe br: 8x4 (default), 4x24, 8x16, 16x12, 64x8 or 10x30; gst: 10x30; disarm:
    64x32."""
    tau: float | None = None
    """Temperature."""
    gap: float | Literal["pi"] | None = None
    """Gap of gst; pi is the expected gap of Lemma 1."""
    eta: float | None = None
    """Weight of reinmax_cv's control variate."""
    control: Literal["soft", "gumbel"] | None = None
    """Control variate of reinmax_cv."""
    beta: float | None = None
    """Of reinmax_rk2."""
    centred: bool | None = None
    """Of reinmax_rk2: the mean that BR Eq. 26 states."""
    a: float | None = None
    """Of mix: 0 is straight_through, 1 is reinmax."""
    mid_tau: float | None = None
    """Mixed temperatures: each --low-every-th batch of an epoch takes --tau, all others this one."""
    low_every: int | None = None
    """Of mixed temperatures; 20 if not given."""
    num_samples: int | None = None
    """Monte-Carlo draws K of gumbel_rao, reinmax_rao and reinmax_cv; codes a step of rloo and disarm_tree."""
    lr: float | None = None
    """Learning rate."""
    optimizer: Literal["adam", "radam"] | None = None
    """Optimiser."""
    epochs: int | None = None
    """Epochs in all. A finished run goes on from its checkpoint if this is raised."""
    batch_size: int | None = None
    """Images a step."""
    relu_logits: bool | None = None
    """A ReLU on the encoder's output, as in the GST paper's public code (recipe gst: True)."""
    data: Literal["digits", "mnist"] = "digits"
    """digits: 1797 images of 8x8 pixels, no network needed. mnist: downloaded once, or from --data-dir."""
    data_dir: Path | None = None
    """Directory with MNIST's idx.gz files."""
    seed: int = 0
    """Of the weights, the order of the data and the noise."""
    device: str = "cpu"
    """As torch names it: cpu, cuda, cuda:1."""
    backend: str | None = None
    """Backend of discrete_ops; the device's default if not given."""
    out: Path | None = None
    """Directory of the run; default runs/vae/DATA-RECIPE-LATENT-ESTIMATOR-SEED."""
    resume: bool = True
    """Go on from the checkpoint in --out, if there is one; otherwise start anew, over what lies there."""
    tensorboard: bool = False
    """Write TensorBoard's event files to --out too."""
    threads: int | None = None
    """Threads of torch; its own default if not given."""
    distributed: bool = False
    """Share each batch between the processes that torchrun started."""

    def config(self) -> Config:
        return configure(
            recipe=self.recipe,
            estimator=self.estimator,
            data=self.data,
            seed=self.seed,
            device=self.device,
            backend=self.backend,
            latent=self.latent,
            tau=self.tau,
            gap=self.gap,
            eta=self.eta,
            control=self.control,
            beta=self.beta,
            centred=self.centred,
            a=self.a,
            mid_tau=self.mid_tau,
            low_every=self.low_every,
            num_samples=self.num_samples,
            lr=self.lr,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            relu_logits=self.relu_logits,
        )

    def run(self, console: Console) -> int:
        set_threads(self.threads)
        processes = Accelerated(self.device) if self.distributed else Alone()
        config = self.config()
        processes.check(config.batch_size)
        name = "-".join((config.data, config.recipe, config.latent, config.estimator, str(config.seed)))
        out = self.out or Path("runs/vae") / name
        check_folder("out", out)
        images = data.load(config.data, self.data_dir)
        console = console if processes.rank == 0 else Console(quiet=True)
        with RunProgress(console, config.epochs) as progress:
            run = train.fit(
                config,
                images,
                out,
                resume=self.resume,
                tensorboard=self.tensorboard,
                processes=processes,
                on_step=progress.on_step,
                on_epoch=progress.on_epoch,
                on_start=progress.on_start,
            )
        processes.leave()
        if processes.rank:
            return 0
        from . import plots  # matplotlib is slow to import

        plots.write_run(run, out)
        last = run.history_of(0)[-1]
        console.print(
            f"{config.estimator}, epoch {run.epoch}: train {last['train_loss']:.3f}, test {last['test_loss']:.3f}; "
            f"backend {config.backend}; written to {out}",
            highlight=False,
            soft_wrap=True,
        )
        return 0


@dataclass(frozen=True)
class Demo:
    """Train a discrete VAE with every estimator and three seeds on the embedded digits; one table and pictures."""

    out: Path = Path("runs/demo")
    """Directory of the summary, with one directory an estimator."""
    epochs: int = 80
    """Epochs of each run."""
    fresh: bool = False
    """Train again what is finished, instead of going on where an earlier demo stopped."""

    def run(self, console: Console) -> int:
        check_folder("out", self.out)
        return demo.run(self.out, self.epochs, self.fresh, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[TableCommand, tyro.conf.subcommand("table")]
        | Annotated[FigureCommand, tyro.conf.subcommand("figure")]
        | Annotated[SweepCommand, tyro.conf.subcommand("sweep")],
        prog="python -m tasks.vae",
        description="Discrete VAEs: the experiments of the GST and Beyond ReinMax papers.",
        args=arguments,
    )
    return exit_status(lambda: command.run(console()))
