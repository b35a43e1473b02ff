"""`Client` and `AsyncClient`: a Steward server's interface for people and their programs.

Start reading at server.py, which has every resource. Both clients are made of the same resources;
calls.py says how, and conversation.py what is renewed and what is tried again.
"""

from steward_client.client.awaiting import AsyncClient
from steward_client.client.blocking import Client
from steward_client.client.credentials import SignIn, SignInStore
from steward_client.client.events import Events

__all__ = ["AsyncClient", "Client", "Events", "SignIn", "SignInStore"]
