"""How ``python -m tasks.NAME`` begins."""

import importlib
import sys


def run(task: str) -> None:
    """Run the task's command line, and end the process with its status."""
    try:
        cli = importlib.import_module(f"{task}.cli")  # takes seconds: ^C meanwhile is no traceback either
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"{task} needs what `pip install -e '.[tasks]'` brings: {error}")
    sys.exit(cli.main())
