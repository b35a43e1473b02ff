"""An agent that tries to get out of its environment: to addresses, and to files of the host.

It says what became of each attempt, and ends with the number of those that worked.
"""

import socket
import sys


def attempt(what: str) -> bool:
    """Whether a file can be read, or an address, `host:port`, be reached."""
    host, colon, port = what.rpartition(":")
    try:
        if colon:
            socket.create_connection((host, int(port)), timeout=2).close()
        else:
            with open(what, "rb") as file:  # noqa: PTH123 - the shortest way to try
                file.read(1)
    except OSError as error:
        print(f"agent: {what}: {error.strerror or error}", flush=True)
        return False
    print(f"agent: {what}: it worked", flush=True)
    return True


def main() -> None:
    sys.exit(sum(attempt(each) for each in sys.argv[1:]))


if __name__ == "__main__":
    main()
