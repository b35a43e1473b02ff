"""Idempotency: repeats of a call are told the first one's answer. Start reading at answers.py."""
