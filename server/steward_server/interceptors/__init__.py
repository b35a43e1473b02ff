"""What happens to every call before and after its servicer, one small class per concern.

They have the shape of grpc-interceptor's `AsyncServerInterceptor`, with one difference: the next
link is awaited for streams as well, and then gives the iterator of responses. Those that do nothing
after the servicer are plain functions that hand on what is to be awaited: a coroutine less.
"""
