"""Random flips and four-pixel pad-and-crop of a batch, drawn from a counter.

The transformation of an image is an integer hash of (key of the training, update, example of the batch). So slicing and
resuming do not change the bits, there is no generator state to store, and nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from lth.models.dropout import hashes

BORDER = 4


def flip_and_crop(images: Tensor, key: int, update: int) -> Tensor:
    """Flip each of `images` [n, channels, h, w] with probability 1/2, pad it by four pixels, and crop it at random.

    The paper's "random flips and random four pixel pads and crops" (Appendix I): flips are horizontal, and the crop, of
    the image's size, is at one of 9 x 9 positions.
    """
    count, channels, height, width = images.shape
    drawn = hashes(key, update, 0, (count, 1), images.device)
    places = 2 * BORDER + 1
    flipped, down, right = drawn & 1, (drawn >> 1 & 0x7FFF) * places >> 15, (drawn >> 16) * places >> 16
    column = torch.arange(width, device=images.device)
    columns = torch.where(flipped == 1, width - 1 - column, column) + right
    rows = torch.arange(height, device=images.device) + down
    pixels = rows[:, :, None] * (width + 2 * BORDER) + columns[:, None, :]
    padded = pad(images, (BORDER,) * 4).reshape(count, channels, -1)
    crops = padded.gather(2, pixels.reshape(count, 1, -1).expand(-1, channels, -1))
    return crops.reshape(count, channels, height, width)
