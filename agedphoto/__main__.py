"""`python -m agedphoto` is the command `agedphoto`."""

from agedphoto.cli import main

raise SystemExit(main())
