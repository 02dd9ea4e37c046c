"""Weights: a file of a network's weights from anywhere, read without running anything, and put into a network only if all of it fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

INSIDE = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep the state dict in what they save
AROUND = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before every name


def read_weights(path: str | Path, *, where: str) -> dict[str, "Tensor"]:
    """The tensors of a .safetensors file or of a state dict, alone or inside a checkpoint of plain data, by name.

    ConfigError with `where` (`weights=FILE`) before it: no such file, or none that can be loaded without running code.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = next((state[key] for key in INSIDE if isinstance(state.get(key), Mapping)), state)
        if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise ValueError("holds other things than tensors; save model.state_dict()")
    except Exception as error:  # zip, pickle, header and attribute errors of every kind
        reason = " ".join(str(error).split(". ")[0].split())
        raise ConfigError(f"{where}: is no state dict that can be loaded ({reason or type(error).__name__})") from error
    while prefix := next((prefix for prefix in AROUND if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def put_weights(network: "nn.Module", state: Mapping[str, "Tensor"], *, where: str, hint: str = "") -> None:
    """Load all of `state` into `network`; ConfigError that names what is missing, left over, or of another shape, and nothing is loaded.

    A backbone that has other names than its library's translates them in `own_names(state)`. Counts of batches may be missing.
    """
    state = getattr(network, "own_names", dict)(state)
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    over = [name for name in state if name not in own]
    shapes = [
        f"{name} {_shape(state[name])}, here {_shape(own[name])}" for name in own if name in state and own[name].shape != state[name].shape
    ]
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for names, what in ((shapes, "of another shape"), (missing, "missing"), (over, "left over"))
        if names
    ]
    if wrong:
        raise ConfigError(f"{where}: does not fit the network, of {len(own)} tensors: {'; '.join(wrong)}{'; ' * bool(hint)}{hint}")
    network.load_state_dict(state, strict=False)


def _shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "()"
