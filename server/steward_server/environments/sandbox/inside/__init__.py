"""What runs outside the server: the launcher, and pid 1 of every machine. Start at launcher.py.

Only the standard library is used here, and nothing else of Steward: these processes hold no
secret and few pages of memory.
"""
