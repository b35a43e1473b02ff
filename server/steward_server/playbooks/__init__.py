"""Playbooks: procedures in YAML. Start reading at playbook.py, then reading.py and checking.py.

checking.load reads one, starting.start_values says what it starts with, planning.plan what it would
do, and catalogue.binding.bound what each step is given. library.py is where a server has them.
"""
