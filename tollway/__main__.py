"""Makes `python -m tollway` the same as `tollway`."""

import sys

from tollway.gateway.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
