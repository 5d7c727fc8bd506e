"""What two ranks run under a framework, started by torchrun from test_frameworks.py."""

import json
import sys
import warnings
from pathlib import Path

import torch

from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank


def open_pairs(shards: str, **options) -> AgedPairs:
    """Pairs of this rank, whichever it is."""
    return AgedPairs(
        shards, crop_px=16, batch_size=2, crops_per_photo=3, seed=5, device="cpu", num_threads=1,
        textures=TextureBank.synthesize(2, size_px=64), **options,
    )  # fmt: skip


def say(out: str, rank: int, **what) -> None:
    Path(out, f"{rank}.json").write_text(json.dumps(what))


def accelerate(shards: str, out: str) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    pairs = open_pairs(shards)
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    keys = []
    for batch in pairs:
        loss = (net(batch.aged) - batch.clean).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        keys += batch.keys.tolist()
    weight = float(accelerator.unwrap_model(net).weight.sum())
    say(out, pairs.rank, keys=keys, weight=weight, batches=len(pairs))
    pairs.close()
    accelerator.end_training()


def accelerate_prepared(shards: str, out: str, dispatch: str) -> None:
    """Prepared by Accelerate: must be refused, whichever way it would split."""
    from accelerate import Accelerator, DataLoaderConfiguration
    from torch.utils.data import DataLoader

    splitting = DataLoaderConfiguration(dispatch_batches=dispatch == "dispatch")
    accelerator = Accelerator(cpu=True, dataloader_config=splitting)
    pairs = open_pairs(shards)
    refused = ""
    try:
        loader = accelerator.prepare(DataLoader(pairs, batch_size=None))
        # Only the first rank reads when batches are dispatched; the other would wait for it.
        if pairs.rank == 0:
            next(iter(loader))
    except ValueError as error:
        refused = str(error)
    say(out, pairs.rank, refused=refused)
    pairs.close()
    accelerator.end_training()


def lightning(shards: str, out: str) -> None:
    import lightning as L

    warnings.simplefilter("ignore")
    keys: list[int] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv2d(1, 1, 3, padding=1)

        def training_step(self, batch, _):
            keys.extend(batch.keys.tolist())
            return (self.net(batch.aged) - batch.clean).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=out,
    )  # fmt: skip
    # Before fit there is no process group yet: ranks come from torchrun's environment.
    pairs = open_pairs(shards)
    module = Module()
    trainer.fit(module, train_dataloaders=pairs)
    weight = float(module.net.weight.sum())
    say(out, pairs.rank, keys=keys, weight=weight, batches=len(pairs))
    pairs.close()
    # Lightning leaves it to the exit of Python, where gloo's threads now and then abort.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
