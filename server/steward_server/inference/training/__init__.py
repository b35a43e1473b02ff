"""How the policies that ship are made, from a seed, in minutes. Start reading at __main__.py.

`python -m steward_server.inference.training` makes them all again. Nothing of the server imports
this, and only this needs JAX: what is served is the ONNX file it writes.
"""
