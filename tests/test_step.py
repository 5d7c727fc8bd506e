"""A step waits for nothing, adds up batches as one, and leaves out what is not finite."""

import copy
import dataclasses
import math

import pytest
import torch
from nano import drawn, flat, flat_gradient, make_batch, make_stepper, nano_objective
from torch import Tensor
from watch import Watch

from agedphoto.datasets import Batch
from agedphoto.synth import MODES, Mode

pytestmark = pytest.mark.usefixtures("nano")

RESTORING: tuple[Mode, ...] = ("grayscale", "rgb", "color")


def poisoned(batch: Batch) -> Batch:
    return dataclasses.replace(batch, aged=batch.aged * math.nan)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    def part(where: slice) -> Batch:
        return dataclasses.replace(
            batch, photos=batch.photos[where],
            **{name: tensor[where] for name, tensor in batch.tensors().items()},
        )  # fmt: skip

    middle = len(batch.keys) // 2
    return part(slice(0, middle)), part(slice(middle, None))


def everything(net: torch.nn.Module, optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Weights, statistics, and all that the optimiser keeps, its count of steps among them."""
    kept = [tensor for state in optimiser.state.values() for tensor in state.values()]
    assert kept
    return [tensor.detach().clone() for tensor in [*net.state_dict().values(), *kept]]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_wait_for_nothing_and_draw_nothing(mode, device):
    stepper, net, _, _ = make_stepper(nano_objective(mode), device=device)
    batches = [make_batch(mode, seed=seed).to(device) for seed in range(2)]
    # Tables of the bins are copied to the device once.
    stepper(batches[:1], lr=1e-3, decay=0.9)
    before, generator = flat(net), torch.get_rng_state()
    with Watch() as watch:
        for number in range(50):
            stepper([batches[number % 2]], lr=1e-3, decay=0.9)
    assert watch.seen > 50 * 20
    assert watch.waits == []
    assert watch.draws == []
    assert torch.equal(torch.get_rng_state(), generator)
    assert not torch.equal(flat(net), before)
    with Watch() as watch:
        stepper.tally()
    assert watch.waits, "whoever asks what happened waits for it"


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_cuda_itself_finds_nothing_to_wait_for(mode):
    place = torch.device("cuda")
    stepper, _, _, _ = make_stepper(nano_objective(mode), device=place)
    batch = make_batch(mode).to(place)
    stepper([batch], lr=1e-3, decay=0.9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(50):
            stepper([batch], lr=1e-3, decay=0.9)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert stepper.tally()["taken"] == 51


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(mode):
    stepper, net, average, optimiser = make_stepper(nano_objective(mode))
    batch = make_batch(mode)
    for _ in range(2):
        stepper([batch], lr=1e-2, decay=0.9)
    before, shown = everything(net, optimiser), flat(average)
    stepper([poisoned(batch)], lr=1e-2, decay=0.9)
    assert same(everything(net, optimiser), before)
    torch.testing.assert_close(flat(average), shown + 0.1 * (flat(net) - shown))
    assert all(tensor.isfinite().all() for tensor in average.state_dict().values())
    stepper([batch], lr=1e-2, decay=0.9)
    assert not same(everything(net, optimiser), before)
    tally = stepper.tally()
    assert (tally["taken"], tally["skipped"], tally["longest_row"]) == (3, 1, 1)
    assert math.isfinite(tally["loss"])


def test_a_step_that_was_left_out_leaves_no_trace_in_the_next_ones():
    batches = [make_batch(seed=seed) for seed in range(3)]
    found = []
    for spoilt in (False, True):
        stepper, net, _, optimiser = make_stepper(nano_objective())
        for batch in batches:
            if spoilt:
                stepper([poisoned(batch)], lr=1e-2, decay=0.9)
            stepper([batch], lr=1e-2, decay=0.9)
        found.append(everything(net, optimiser))
    assert same(*found)


def test_one_bad_batch_among_several_spoils_the_step():
    stepper, net, _, optimiser = make_stepper(nano_objective())
    batch = make_batch()
    stepper([batch, batch], lr=1e-2, decay=0.9)
    before = everything(net, optimiser)
    stepper([batch, poisoned(batch)], lr=1e-2, decay=0.9)
    assert same(everything(net, optimiser), before)


def test_rows_of_steps_left_out_are_counted_across_tallies():
    stepper, _, _, _ = make_stepper(nano_objective())
    good = make_batch()
    bad = poisoned(good)

    def after(*batches: Batch) -> tuple[int, int, int]:
        for batch in batches:
            stepper([batch], lr=1e-3, decay=0.9)
        tally = stepper.tally()
        return tally["taken"], tally["skipped"], tally["longest_row"]

    assert after(good, bad, bad, good, bad) == (2, 3, 2)
    assert after(bad, bad) == (0, 5, 3)
    assert after(good) == (1, 5, 3)
    assert after(good) == (1, 5, 0)


def test_the_tally_is_the_mean_loss_of_the_steps_taken_since_the_last():
    objective = nano_objective()
    stepper, net, _, _ = make_stepper(objective)
    batches = [make_batch(seed=seed) for seed in range(4)]
    expected = []
    for batch in batches[:3]:
        with torch.no_grad():
            expected.append(objective.loss(net, batch).mean().item())
        stepper([batch], lr=1e-2, decay=0.9)
    stepper([poisoned(batches[3])], lr=1e-2, decay=0.9)
    assert stepper.tally()["loss"] == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert math.isnan(stepper.tally()["loss"])


def test_what_was_counted_can_be_kept_and_put_back():
    stepper, _, _, _ = make_stepper(nano_objective())
    batch = make_batch()
    for one in (batch, poisoned(batch)):
        stepper([one], lr=1e-3, decay=0.9)
    state = copy.deepcopy(stepper.state_dict())
    expected = stepper.tally()
    other, _, _, _ = make_stepper(nano_objective())
    other.load_state_dict(state)
    assert other.tally() == expected


@pytest.mark.parametrize("mode", RESTORING)
def test_two_batches_of_four_are_as_one_of_eight(mode):
    """So are two ranks, which add up their gradients alike, and fill up their batches unlike."""
    whole = make_batch(mode, count=8)
    whole.valid[5:] = False
    found = []
    for batches in ([whole], list(halves(whole))):
        stepper, net, _, _ = make_stepper(nano_objective(mode), clip_norm=1e6)
        stepper(batches, lr=1e-3, decay=0.9)
        found.append((flat_gradient(net), flat(net), stepper.tally()["loss"]))
    (gradient, weights, loss), (parted, others, other) = found
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(parted, gradient, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(others, weights, rtol=0, atol=1e-4)
    assert other == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_halves(mode):
    """What makes ranks agree; in mode lab up to the statistics of a batch, so without them."""
    objective = nano_objective(mode)
    net = drawn(objective).eval().double()
    whole = make_batch(mode, count=6)
    whole = dataclasses.replace(whole, aged=whole.aged.double())
    whole.valid[4:] = False

    def gradient(batch: Batch) -> Tensor:
        net.zero_grad()
        # Loss and network in float64: sums differ by their order alone.
        net_losses = objective.loss(_Double(net), batch)
        (net_losses * batch.valid).mean().backward()
        return flat_gradient(net)

    first, second = (gradient(half) for half in halves(whole))
    expected = gradient(whole)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close((first + second) / 2, expected, rtol=1e-4, atol=1e-6)


class _Double(torch.nn.Module):
    """Takes float32, computes in float64."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.module = net

    def forward(self, x: Tensor, **options):
        return self.module(x.double(), **options)


def test_pairs_that_are_not_valid_have_no_gradient():
    batch = make_batch()
    batch.valid[:] = False
    stepper, net, _, _ = make_stepper(nano_objective())
    stepper([batch], lr=1e-3, decay=0.9)
    assert flat_gradient(net).abs().max() == 0
    assert stepper.tally()["loss"] == 0


def test_gradients_of_a_larger_norm_are_scaled_down_to_it():
    gradients = []
    for clip_norm in (1e6, 1e-3):
        stepper, net, _, _ = make_stepper(nano_objective(), clip_norm=clip_norm)
        stepper([make_batch()], lr=1e-3, decay=0.9)
        gradients.append(flat_gradient(net).double())
    free, clipped = gradients
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped, 1e-3 * free / free.norm(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("mode", ["grayscale", "lab"])
def test_the_average_keeps_its_share_and_takes_the_rest_from_the_network(mode):
    """Statistics of normalisation likewise, or they would not fit the averaged weights."""
    stepper, net, average, _ = make_stepper(nano_objective(mode))
    expected = {name: tensor.double() for name, tensor in net.state_dict().items()}
    for seed, decay in enumerate((0.0, 0.5, 0.9)):
        stepper([make_batch(mode, seed=seed)], lr=1e-2, decay=decay)
        for name, tensor in net.state_dict().items():
            kept = decay if tensor.is_floating_point() else 0
            expected[name] = kept * expected[name] + (1 - kept) * tensor.double()
    assert any(name.endswith("running_var") for name in expected) == (mode == "lab")
    for name, tensor in average.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not average.training


def test_the_learning_rate_is_that_of_the_step():
    """The first step of Adam changes every weight by the rate, whatever its gradient."""
    for lr in (1e-3, 0.0):
        stepper, net, _, _ = make_stepper(nano_objective())
        before = flat(net)
        stepper([make_batch()], lr=lr, decay=0.9)
        moved = (flat(net) - before).abs()[flat_gradient(net).abs() > 1e-4]
        assert len(moved) > 100
        torch.testing.assert_close(moved, torch.full_like(moved, lr), rtol=1e-2, atol=1e-7)


def test_the_mask_is_learnt():
    objective = nano_objective(mask_weight=1.0)
    stepper, net, average, _ = make_stepper(objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net.load_state_dict(objective.make_net().state_dict())
    average.load_state_dict(net.state_dict())
    batches, held_out = [make_batch(count=8, seed=seed) for seed in range(8)], make_batch(seed=99)

    def iou() -> float:
        with torch.no_grad():
            found = average(held_out.aged, with_mask=True)[1].numpy() > 0
        mask = held_out.mask.numpy()
        return (found & mask).sum() / (found | mask).sum()

    assert iou() == 0
    for number in range(120):
        stepper([batches[number % 8]], lr=1e-2, decay=0.9)
    assert iou() > 0.7
