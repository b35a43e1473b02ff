"""REST, server-sent events and WebSockets, derived from descriptors. Start reading at routes.py.

Nothing here knows a capability by name: what is served follows from `google.api.http`, the
options of `steward/gateway/v1/options.proto` and a `Transport` that reaches the core.
"""
