"""The raw TCP server: ``python aii_server.py --help``.

Reads flags and environment, then serves; the parts are put together in ``aii/cli/serve.py``.
"""

import sys

from aii.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())
