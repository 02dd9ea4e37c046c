"""What every activation module of a network is given and gives, over test images."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnlab.evaluation.trained import TEST, Trained
from attnlab.ood.bank import Bank
from attnlab.placement.kinds import kind_of


def over_activations(trained: Trained, num: int, see: Callable[[str, Tensor, Tensor], None], *, at_once: int | None = None) -> Bank:
    """Calls `see(module's name, its input, its output)` in the order of the pass, batch by batch of `num` test images, every class in
    proportion; gives their bank. at_once: images a batch, at most. ValueError: a network without activation modules."""
    modules = {name: one for name, one in trained.network.named_modules() if kind_of(type(one)) == "activation"}
    if not modules:
        raise ValueError("there are no activation modules to look at: the network has none")
    _, images = trained.choice(TEST, num, seed=trained.seed)
    size = min(trained.data.eval_batch_size, at_once or num)

    def watch(name: str) -> RemovableHandle:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            see(name, args[0], output)

        return modules[name].register_forward_hook(hook)

    handles = [watch(name) for name in modules]
    try:
        batches = zip(images.images.split(size), images.labels.split(size))
        return trained.extract((trained.data.normalise(pixels).to(trained.settings.device), y) for pixels, y in batches)
    finally:
        for handle in handles:
            handle.remove()
