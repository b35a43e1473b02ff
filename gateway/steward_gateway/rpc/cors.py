"""What browsers of another origin must be allowed to send and to see for Connect and gRPC-Web."""

from __future__ import annotations

ALLOWED_METHODS = ("GET", "POST")

ALLOWED_HEADERS = (
    "Connect-Protocol-Version",
    "Connect-Timeout-Ms",
    "Content-Type",
    "Grpc-Timeout",
    "X-Grpc-Web",
    "X-User-Agent",
)

EXPOSED_HEADERS = ("Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin")
"""Trailers of a unary Connect answer are headers as well: `Trailer-` before the name each has."""
