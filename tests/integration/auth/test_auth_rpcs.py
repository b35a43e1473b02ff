"""AuthService over a real port."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import jwt
import pytest
from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2 as pb
from steward.events.v1 import events_pb2
from steward.gateway.v1 import options_pb2

from ..conftest import ADMIN_PASSWORD, Server, bearer, refusal, refusal_of
