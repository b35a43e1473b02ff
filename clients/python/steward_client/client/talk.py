"""A stream in both directions for threads: grpc takes what is said from an iterator of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from steward_client.client.conversation import Metadata
from steward_client.errors import Unavailable

WAITING = 8
"""Messages that may wait to be sent; then whoever says more waits."""


class Talk:
    """One call whose requests are said one by one. One thread may read while another speaks."""

    def __init__(self, method: Callable[..., Any], first: Any, metadata: Metadata) -> None:
        self._waiting: deque[Message] = deque([first])
        self._said_count, self._sent_count = 1, 0
        self._has_ended = False
        self._changed = threading.Condition()
        self._stream = method(self._said(), metadata=metadata)
        if not self._stream.add_callback(self._end):
            self._end()

    def say(self, message: Message, *, until_sent: bool = False) -> None:
        """Send a message; and wait until it has gone, before which a crowded stream may end.

        Raises:
            Unavailable: the call has ended, and whoever reads is told why.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < WAITING or self._has_ended)
            if self._has_ended:
                raise Unavailable("the stream has ended")
            self._waiting.append(message)
            self._said_count += 1
            number = self._said_count
            self._changed.notify_all()
            if until_sent:
                self._changed.wait_for(lambda: self._sent_count >= number or self._has_ended)

    @property
    def call(self) -> Any:
        """The call as grpc has it; it is also the error that it ended with."""
        return self._stream

    def add_callback(self, tell: Callable[[], None]) -> bool:
        """Have it told when the call is over; False: it is over."""
        return bool(self._stream.add_callback(tell))

    def initial_metadata(self) -> Any:
        return self._stream.initial_metadata()

    def done(self) -> bool:
        return bool(self._stream.done())

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._stream.code()
        return code

    def cancel(self) -> None:
        self._stream.cancel()
        self._end()

    def __iter__(self) -> Talk:
        return self

    def __next__(self) -> Any:
        return next(self._stream)

    def _end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _said(self) -> Any:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._has_ended)
                if self._has_ended:
                    return
                message = self._waiting.popleft()
                self._changed.notify_all()
            yield message
            # It has gone: grpc asks for the next.
            with self._changed:
                self._sent_count += 1
                self._changed.notify_all()
