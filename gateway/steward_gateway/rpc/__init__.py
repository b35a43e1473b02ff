"""Methods at `/package.Service/Method`: Connect and gRPC-Web. Start reading at door.py.

Both are the same call told in two ways: `connect.py` and `grpc_web.py` say how a request is read
and an answer, a failure and the end of a stream are written; `door.py` makes the call.
"""

from steward_gateway.rpc.door import RpcDoors

__all__ = ["RpcDoors"]
