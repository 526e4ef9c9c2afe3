"""Entry point of ``python -m tasks.polynomial``."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main  # takes seconds: ^C meanwhile is no traceback either
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"tasks.polynomial needs what `pip install -e '.[tasks]'` brings: {error}")
    sys.exit(main())
