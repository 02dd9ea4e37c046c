"""The loaders: exact augmentation, one order for every device, worker count, shard and resume."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.data.augment import Crops, epoch_order, mirror, mirror_picks, pad_zeros, stream_seed
from attnlab.data.images import ImageSet
from attnlab.data.loader import AT_ONCE_BYTES, ResidentLoader
from attnlab.data.stream import StreamLoader

# Python 3.12 warns of any fork in a process with threads; torch's DataLoader forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def some_images(num=37, shape=(3, 8, 6)):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (num, *shape), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(num) % 5


def options(**changes):
    return dict(batch_size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), unit=255.0, device="cpu", **changes)


TRAINING = dict(shuffle=True, seed=3, pad=2, flip=True, drop_last=True)


def by_hand(images, order, dy, dx, flip, pad, mean, std):
    """One image at a time, as one would write it down."""
    batch = []
    for n, y, x, f in zip(order, dy, dx, flip):
        image = images[n].numpy()
        C, H, W = image.shape
        padded = np.zeros((C, H + 2 * pad, W + 2 * pad), dtype=np.uint8)
        padded[:, pad : pad + H, pad : pad + W] = image
        cut = padded[:, y : y + H, x : x + W]
        cut = cut[:, :, ::-1] if f else cut
        batch.append(torch.from_numpy(cut.copy()))
    u8 = torch.stack(batch)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
    return u8, (u8.double() / 255 - mean) / std


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 3), st.integers(1, 9), st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)), st.integers(0, 2**31)
)
def test_augmentation_equals_a_loop_over_images(pad, num, shape, seed):
    images = torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    plan = epoch_order(num, seed=seed, epoch=0, pad=pad)
    crops = Crops(pad_zeros(images.permute(0, 2, 3, 1), pad), pad)
    got = crops(crops.first(plan.order_N, plan.dy_N, plan.dx_N))
    got = mirror(got, mirror_picks(plan.flip_N, len(got))).permute(0, 3, 1, 2)
    want, _ = by_hand(images, *(column.tolist() for column in plan), pad, (0.5,) * shape[0], (1.0,) * shape[0])
    assert torch.equal(got, want)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_batches_equal_the_loop_and_are_channels_last(monkeypatch, at_once):
    images, labels = some_images()
    monkeypatch.setitem(AT_ONCE_BYTES, "cpu", at_once * 8 * 4 * images[0].numel())
    loader = ResidentLoader(images, labels, **options(**TRAINING))
    loader.set_epoch(4)
    plan = epoch_order(37, seed=3, epoch=4, pad=2)
    batches = list(loader)
    assert len(batches) == len(loader) == 4 and loader.at_once == at_once
    for k, (x, y) in enumerate(batches):
        rows = [column[8 * k : 8 * k + 8].tolist() for column in plan]
        _, want = by_hand(images, *rows, 2, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(x.double(), want, rtol=1e-6, atol=1e-6)
        assert torch.equal(y, labels[rows[0]])


def test_draws_are_uniform():
    plan = epoch_order(50_000, seed=0, epoch=0, pad=2)
    for offsets in (plan.dy_N, plan.dx_N):
        counts = torch.bincount(offsets, minlength=5)
        assert len(counts) == 5 and (counts - 10_000).abs().max() < 500
    assert abs(plan.flip_N.float().mean() - 0.5) < 0.01
    assert torch.equal(plan.order_N.sort().values, torch.arange(50_000))


def test_an_epoch_is_a_function_of_seed_and_epoch_alone():
    images, labels = some_images()

    def epoch(number, *, seed=3, noise=0):
        loader = ResidentLoader(images, labels, **options(**TRAINING | {"seed": seed}))
        torch.manual_seed(noise)
        loader.set_epoch(number)
        before = torch.get_rng_state()
        x = torch.cat([x for x, _ in loader])
        assert torch.equal(torch.get_rng_state(), before)  # the global stream belongs to the network
        return x

    assert torch.equal(epoch(7), epoch(7, noise=1))
    assert not torch.equal(epoch(7), epoch(8))
    assert not torch.equal(epoch(7), epoch(7, seed=4))
    assert len({stream_seed("epoch", s, e) for s in range(30) for e in range(30)}) == 900
    order = epoch_order(37, seed=3, epoch=7, pad=0).order_N
    assert torch.equal(order, epoch_order(37, seed=3, epoch=7, pad=4).order_N)  # whatever the augmentation


def test_evaluation_is_every_image_in_order():
    images, labels = some_images()
    loader = ResidentLoader(images, labels, **options(pad=2, flip=True))
    x, y = (torch.cat(parts) for parts in zip(*loader))
    _, want = by_hand(images, range(37), [0] * 37, [0] * 37, [0] * 37, 0, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    torch.testing.assert_close(x.double(), want, rtol=1e-6, atol=1e-6)
    assert torch.equal(y, labels) and len(loader) == 5


def test_vectors():
    points = torch.randn(11, 2)
    opts = options(shuffle=True) | {"mean": (1.0, 2.0), "std": (2.0, 4.0), "unit": 1.0}
    x, y = (torch.cat(parts) for parts in zip(*ResidentLoader(points, torch.arange(11), **opts)))
    torch.testing.assert_close(x, (points[y] - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0]))
    assert sorted(y.tolist()) == list(range(11))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shards_make_up_the_whole(world_size, drop_last):
    images, _ = some_images()
    labels = torch.arange(37)
    changes = TRAINING | {"drop_last": drop_last}
    shards = [ResidentLoader(images, labels, **options(**changes, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    seen = [[y for _, y in shard] for shard in shards]
    if drop_last:  # step k of all processes = step k of one process with the larger batch
        whole = ResidentLoader(images, labels, **options(**changes) | {"batch_size": 8 * world_size})
        for k, (_, y) in zip(range(len(shards[0])), whole, strict=True):
            assert sorted(y.tolist()) == sorted(torch.cat([ys[k] for ys in seen]).tolist())
    else:
        together = torch.cat([torch.cat(ys) for ys in seen])
        assert len(together) == -(-37 // world_size) * world_size and set(together.tolist()) == set(range(37))


def test_rank_outside_the_world():
    with pytest.raises(ValueError, match="rank"):
        ResidentLoader(*some_images(), **options(rank=2, world_size=2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_stream_gives_the_resident_batches_bit_for_bit(num_workers):
    images, labels = some_images()
    for changes in (TRAINING, {}):
        resident = ResidentLoader(images, labels, **options(**changes))
        stream = StreamLoader(ImageSet(images, labels), num_workers=num_workers, **options(**changes))
        for epoch in (0, 1, 5):
            resident.set_epoch(epoch), stream.set_epoch(epoch)
            torch.manual_seed(0)
            before = torch.get_rng_state()
            for (x, y), (want_x, want_y) in zip(stream, resident, strict=True):
                assert torch.equal(x, want_x) and torch.equal(y, want_y)
                assert x.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_left_half_way_starts_anew():
    images, labels = some_images()
    stream = StreamLoader(ImageSet(images, labels), num_workers=1, **options(**TRAINING))
    first = next(iter(stream))[0]
    assert torch.equal(first, next(iter(stream))[0])
    stream.set_epoch(1)
    assert not torch.equal(first, next(iter(stream))[0])


def test_lightning_moves_the_epoch_on_and_resumes_where_it_was(tmp_path):
    import warnings

    import pytorch_lightning as pl

    class Watch(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3 * 8 * 6, 5)
            self.seen = []

        def training_step(self, batch, _):
            self.seen.append((self.current_epoch, batch[1].tolist(), batch[0].sum().item()))
            return torch.nn.functional.cross_entropy(self.fc(batch[0].flatten(1)), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    def fit(epochs, path=None):
        module, loader = Watch(), ResidentLoader(*some_images(), **options(**TRAINING))
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice
            trainer.fit(module, train_dataloaders=loader, ckpt_path=path)
        return module.seen, trainer

    straight, _ = fit(4)
    assert [row[0] for row in straight] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for epoch in range(4):
        loader = ResidentLoader(*some_images(), **options(**TRAINING))
        loader.set_epoch(epoch)
        assert [row[1:] for row in straight if row[0] == epoch] == [(y.tolist(), x.sum().item()) for x, y in loader]
    part, trainer = fit(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = fit(4, tmp_path / "half.ckpt")
    assert part + rest == straight


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_epoch():
    images, labels = some_images()
    on_cpu = ResidentLoader(images, labels, **options(**TRAINING))
    for make in (ResidentLoader, lambda x, y, **o: StreamLoader(ImageSet(x, y), num_workers=1, **o)):
        on_gpu = make(images, labels, **options(**TRAINING) | {"device": "cuda"})
        for (x, y), (want_x, want_y) in zip(on_gpu, on_cpu, strict=True):
            assert x.is_cuda and y.is_cuda and torch.equal(y.cpu(), want_y)
            torch.testing.assert_close(x.cpu(), want_x)
