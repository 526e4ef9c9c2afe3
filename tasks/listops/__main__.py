"""Entry point of ``python -m tasks.listops``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
