"""Events: the journal, and its tail to whoever listens. Start reading at store.py and hub.py."""
