"""The back end `bubblewrap`: machines without root.

`bwrap` makes the namespaces. What it starts in them is our own pid 1 (pid1.py), which has rights
over nothing but these namespaces: with them it builds the same root file system as the native back
end, gives them up, and is the supervisor (warden.py). Control groups hold limits only where some
were delegated to the server (delegated.py). Start reading at making.py.
"""
