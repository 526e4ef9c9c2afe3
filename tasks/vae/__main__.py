"""Entry point of ``python -m tasks.vae``."""

from tasks.common.entry import run

if __name__ == "__main__":
    run("tasks.vae")
