"""Images a second of ResNet-18 at 32x32 through attnlab beside a hand-written loop at the same precision, memory format and batch."""

from typing import Any

from benches.common import Framework, Options, Plain, Table, alternate, resident

TITLE = "ResNet-18, 3x32x32, batch 128: images a second"
SHAPE = (3, 32, 32)


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    import torch

    from attnlab.backbones.resnet import resnet18
    from attnlab.network import Network

    gpu = options.torch_device.type == "cuda"
    steps = (50 if options.quick else 200) if gpu else 2
    rounds = 3 if options.quick else 7 if gpu else 5
    found: dict[str, Any] = {"batch_size": 128}
    table = [["", "attnlab", "plain loop", "ratio"]]
    # on a CPU bf16 as well, which is the faster one only where the CPU computes in it
    modes = [(mode, "auto") for mode in ("off", "default", "reduce-overhead")] if gpu else [("off", 32), ("off", "bf16-mixed")]
    for mode, precision in modes:
        settings = options.settings(compile=mode, precision=precision)
        loader = resident(128 * steps, SHAPE, batch_size=128, device=settings.device, pad=4, flip=True)
        batch = next(iter(loader))
        torch.manual_seed(0)
        ours = Network(resnet18(10, SHAPE), shape=SHAPE, num_classes=10).to(memory_format=torch.channels_last)
        plain = resnet18(10, SHAPE).to(memory_format=torch.channels_last)
        contestants = {
            "attnlab": Framework(ours, loader, settings).epoch,
            "plain": Plain(plain, batch, steps, settings).epoch,
        }
        medians = alternate(contestants, rounds=rounds, warmup=2 if gpu else 1)
        rates = {name: 128 / value for name, value in medians.items()}
        ratio = rates["attnlab"] / rates["plain"]
        name = f"{settings.resolved_precision}, {'eager' if mode == 'off' else f'compile {mode}'}"
        found[name] = {"attnlab_images_per_second": rates["attnlab"], "plain_images_per_second": rates["plain"], "ratio": ratio}
        table.append([name, f"{rates['attnlab']:,.1f}", f"{rates['plain']:,.1f}", f"{ratio:.3f}"])
    return found, table
