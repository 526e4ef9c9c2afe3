"""Entry point of ``python -m tasks.frontier``."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main  # takes seconds: ^C meanwhile is no traceback either
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"tasks.frontier needs what `pip install -e '.[tasks]'` brings: {error}")
    sys.exit(main())
