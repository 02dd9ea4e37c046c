"""Placement: put a module AT named places of any network, in one of three ways, without touching the network's own names.

    placed = place(model, {"rect": {"at": "layer3", "module": partial(RectAttention, sharpness=5.0)}}, shape=(3, 32, 32))
    model.placed = placed              # registers the placed modules' parameters under the model; the model's own names stay as they were

A placement is a mapping with the keys
    at      a name of `model.named_modules()`, a glob, or a list of them; `*` stays inside one dotted part, `**` crosses parts.
            Or by kind, whatever the model calls it: `{type: norm}`, also with a glob: `{type: norm, name: "layer*.**"}`; a type is
            activation, conv, norm (see `attnlab.placement.kinds`) or a class: `{type: torch.nn.ReLU}`
    module  called once per place as `module(shape)`, shape = (C, H, W) or (D,) of the value it is given, without the batch
    how     after (default): the place's output goes through the module;  before: its input does;  replace: the module takes its place
    reads   other places whose values the placed module wants: `forward(x, *values)`; `target` is the labels of the batch, or None
    writes  `[target]`: the placed module returns `(y, new_target)`; how mixup and cutmix hand on their soft labels
A place that is called several times in one pass (torchvision uses one ReLU for two calls of a block) takes only a component whose class
says `shareable = True`: one module for all calls, which may not read places and is given the shape of the first call.
A `module` whose signature names `host` (the module it displaces), `read_shapes` (the shapes of `reads`, in order) or `num_classes` is
given them.

They hang on forward hooks that are small callable objects (closures would break deepcopy), so one `torch.compile(fullgraph=True)` takes
the network whole, pretrained weights load under their names, and deepcopy follows its own placed modules.
"""

from attnlab.placement.attach import place, placed

__all__ = ["place", "placed"]
