"""What the contracts are, told to callers that ask: grpcurl needs no file of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha import reflection


class _Pool:
    """The pool of all contracts. By itself it knows the file of a service, but not of a method."""

    def __init__(self) -> None:
        self._pool: Any = Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's
        """The file that declares a symbol.

        Raises:
            KeyError: there is none.
        """
        try:
            found: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            found = self._pool.FindMethodByName(symbol).containing_service.file
        return found


def serve_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Answer questions about these services, by full name, and about reflection itself."""
    names = [*services, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server, pool=_Pool())
