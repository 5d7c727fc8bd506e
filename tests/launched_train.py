"""`agedphoto train` with a small preset, watched and disturbed; the first word says how, as JSON.

- record: folder; keys of the pairs of each step, a file for each rank
- step_s: how much longer each step takes
- kill: {rank, step, marker}; SIGKILL before this step, once: unless the marker is there
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from agedphoto.cli import main
from agedphoto.train import COLOR_PRESETS, PRESETS, ColorNetConfig, UNetConfig
from agedphoto.train.step import Stepper

if __name__ == "__main__":
    how, rank, step = json.loads(sys.argv[1]), int(os.environ.get("RANK", "0")), 0
    PRESETS["nano"] = UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1)
    COLOR_PRESETS["nano"] = ColorNetConfig(
        widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1), attention_blocks=1, heads=2, dropout=0.3
    )
    whole = Stepper.__call__

    def watched(self, batches, **options):
        global step
        step += 1
        kill = how.get("kill")
        if kill and (rank, step) == (kill["rank"], kill["step"]):
            try:
                Path(kill["marker"]).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        whole(self, batches, **options)
        if folder := how.get("record"):
            keys = [int(key) for batch in batches for key in batch.keys[batch.valid]]
            with Path(folder, f"{rank}.jsonl").open("a") as file:
                file.write(json.dumps(keys) + "\n")
        time.sleep(how.get("step_s", 0))

    Stepper.__call__ = watched
    # Where the tests run in the background, it may be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[2:]))
