"""Extra memory of Gumbel-Rao, forward + backward, by the number of draws: each in a fresh process.

python -m bench.memory
"""

import resource
import subprocess
import sys

from rich.console import Console
from rich.table import Table

ROWS, COLUMNS = 3000, 10
DRAWS = (1, 100, 1000)


def peak_mib(which: str, draws: int) -> float:
    """Peak resident memory of a process that runs once, in MiB."""
    command = [sys.executable, "-m", "bench.memory", which, str(draws)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(which: str, draws: int) -> None:
    import discrete_ops as do

    from .formulations import plain_gumbel_rao, setup

    formulations = {
        "ours": lambda logits: do.gumbel_rao(logits, num_samples=draws),
        "plain": lambda logits: plain_gumbel_rao(logits, draws),
        "nothing": lambda logits: logits * 1,
    }
    setup(formulations[which], ROWS, COLUMNS)()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    floor = peak_mib("nothing", 1)
    table = Table(title=f"Gumbel-Rao, {ROWS}x{COLUMNS}: MiB over a process that only multiplies ({floor:.0f} MiB)")
    for column in ("draws", "ours", "plain"):
        table.add_column(column, justify="right")
    for draws in DRAWS:
        table.add_row(str(draws), *(f"{peak_mib(which, draws) - floor:.1f}" for which in ("ours", "plain")))
    Console().print(table)


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main()
