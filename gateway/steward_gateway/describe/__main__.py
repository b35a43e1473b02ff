"""Print a description without a server: `python -m steward_gateway.describe openapi`.

Whoever generates code from the paths or the sockets begins with it.
"""

from __future__ import annotations

import argparse
import sys

from steward_gateway.contracts import load_contracts
from steward_gateway.describe.pages import DESCRIPTIONS


def main() -> None:
    """Write the JSON that a server has at `/openapi.json` or `/asyncapi.json`."""
    arguments = argparse.ArgumentParser(prog="steward_gateway.describe", description=__doc__)
    arguments.add_argument("description", choices=sorted(DESCRIPTIONS))
    given = arguments.parse_args()
    sys.stdout.buffer.write(DESCRIPTIONS[given.description](load_contracts()))


if __name__ == "__main__":
    main()
