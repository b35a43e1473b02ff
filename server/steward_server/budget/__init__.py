"""Budgets: what agents may spend, lent in leases. Start reading at ledger.py."""
