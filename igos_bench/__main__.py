"""`igos-bench`, and `python -m igos_bench`: the command line, and how Ctrl-C and SIGTERM end it."""

import shlex
import sys

from .interrupt import Interruption


def main() -> int:
    """Run the command that the command line asks for; return its exit code."""
    interruption = Interruption(shlex.join(["igos-bench", *sys.argv[1:]]))
    try:
        from . import cli  # from here on, so that a signal while it is imported is heard

        return cli.main()
    except KeyboardInterrupt:
        interruption.end()
    finally:
        interruption.ending = True


if __name__ == "__main__":
    sys.exit(main())
