"""Makes `python -m gateway` the same as `tollway`."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
