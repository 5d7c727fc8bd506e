"""How fast it all is, beside what others use: `agedphoto bench`. See README.md for the contract.

Nothing is re-exported: who imports the command line must not load plots, Kornia or peers.
"""
