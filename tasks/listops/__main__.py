"""Entry point of ``python -m tasks.listops``."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main  # takes seconds: ^C meanwhile is no traceback either
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
