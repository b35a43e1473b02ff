"""Policies served to fast agents. Start reading at engine.py."""
