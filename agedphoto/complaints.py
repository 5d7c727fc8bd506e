"""What the verbs say on stderr: one line each, whatever is in a file's name."""

import sys


def complain(message: str) -> None:
    """Print one line on stderr."""
    # A file name may hold line breaks; a message is one line all the same.
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    print(f"agedphoto: {plain}", file=sys.stderr)
