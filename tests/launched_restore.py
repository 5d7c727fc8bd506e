"""`agedphoto restore`, slowed down; the first word says by how many seconds each photo."""

import signal
import sys
import time

import torch

from agedphoto.cli import main
from agedphoto.restore import Restorer

if __name__ == "__main__":
    torch.set_num_threads(1)
    whole = Restorer.__call__

    def slowed(self, *words, **options):
        time.sleep(float(sys.argv[1]))
        return whole(self, *words, **options)

    Restorer.__call__ = slowed
    # Where the tests run in the background, it may be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(["restore", *sys.argv[2:]]))
