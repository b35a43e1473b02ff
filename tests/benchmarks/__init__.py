"""How fast Steward is, against the goals it set itself. Run with `make bench`."""
