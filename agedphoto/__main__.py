"""`python -m agedphoto` is the command `agedphoto`."""

from agedphoto.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
