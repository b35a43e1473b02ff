"""Runs of playbooks."""
