"""The work of every type of step, a module for each family. The form of it is in work.py."""
