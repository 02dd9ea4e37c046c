"""Images a second of ResNet-18 at 32x32 through attnlab beside a hand-written loop at the same precision, memory format and batch."""

from typing import Any

from benches.common import Framework, Options, Plain, Table, alternate, resident

TITLE = "ResNet-18, 3x32x32, batch 128: images a second"
SHAPE = (3, 32, 32)


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    gpu = options.torch_device.type == "cuda"
    found: dict[str, Any] = {"batch_size": 128}
    table = [["", "attnlab", "plain loop", "ratio"]]
    # on a CPU bf16 as well, which is the faster one only where the CPU computes in it
    modes = [(mode, "auto") for mode in ("off", "default", "reduce-overhead")] if gpu else [("off", 32), ("off", "bf16-mixed")]
    for mode, precision in modes:
        row = one(options, mode=mode, precision=precision)
        name = f"{row.pop('precision')}, {'eager' if mode == 'off' else f'compile {mode}'}"
        found[name] = row
        table.append([name, *(f"{row[f'{side}_images_per_second']:,.1f}" for side in ("attnlab", "plain")), f"{row['ratio']:.3f}"])
    return found, table


def one(options: Options, *, mode: str, precision: Any, batch_size: int = 128) -> dict[str, Any]:
    """Both sides under one mode of torch.compile and one precision."""
    import torch

    from attnlab.backbones.resnet import resnet18
    from attnlab.network import Network

    gpu = options.torch_device.type == "cuda"
    steps = (50 if options.quick else 200) if gpu else 2
    rounds = 3 if options.quick else 7 if gpu else 5
    width = 4 if options.toy else 64
    settings = options.settings(compile=mode, precision=precision)
    loader = resident(batch_size * steps, SHAPE, batch_size=batch_size, device=settings.device, pad=4, flip=True)
    batch = next(iter(loader))
    torch.manual_seed(0)
    ours = Network(resnet18(10, SHAPE, width=width), shape=SHAPE, num_classes=10).to(memory_format=torch.channels_last)
    plain = resnet18(10, SHAPE, width=width).to(memory_format=torch.channels_last)
    contestants = {
        "attnlab": Framework(ours, loader, settings).epoch,
        "plain": Plain(plain, batch, steps, settings).epoch,
    }
    medians = alternate(contestants, rounds=rounds, warmup=2 if gpu else 1)
    rates = {f"{name}_images_per_second": batch_size / value for name, value in medians.items()}
    return {"precision": str(settings.resolved_precision), **rates, "ratio": medians["plain"] / medians["attnlab"]}
