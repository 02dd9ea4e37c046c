"""Grey images in two colours, as a bias that a network may learn.   Legend: N images, C channels."""

from dataclasses import replace

import torch

from attnlab.data.images import ImageSet
from attnlab.data.protocols import stratified_order

COLOURS = ((1.0, 0.25, 0.25), (0.25, 1.0, 0.25))  # of group 0 and group 1: equal but for the channel


def in_colours(images: ImageSet, share: float, seed: int) -> ImageSet:
    """Grey images in red, `share` of every class as nearly as whole images allow, and green; `groups` 0 and 1 say which."""
    order_N = stratified_order(images.labels - images.labels.min(), seed)
    groups_N = torch.ones(len(images), dtype=torch.long)
    groups_N[order_N[: round(share * len(images))]] = 0
    ink_NC11 = torch.tensor(COLOURS)[groups_N][:, :, None, None]
    pixels = (images.images * ink_NC11).round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return replace(images, images=pixels, groups=groups_N)
