"""What machines are made of: root file systems by name. Start reading at catalogue.py."""
