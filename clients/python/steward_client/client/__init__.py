"""`Client` and `AsyncClient`: a Steward server's interface for people and their programs.

Start reading at resources.py, which has every method. Both clients are made of the same resources;
calls.py says how, and conversation.py what is renewed and what is tried again.
"""

from steward_client.client.awaiting import AsyncClient, AsyncEvents
from steward_client.client.blocking import Client, Events
from steward_client.client.credentials import SignIn, SignInStore

__all__ = ["AsyncClient", "AsyncEvents", "Client", "Events", "SignIn", "SignInStore"]
