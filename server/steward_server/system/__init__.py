"""How the server is: health and metrics. Start reading at service.py."""
