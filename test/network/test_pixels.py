"""Pixels become the network's input by value, whatever holds them."""

import numpy as np
import torch

from gsemsplat_ros.network.pixels import to_tensor


def test_to_tensor_of_one_image_and_of_many():
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    images[0, 0, 0] = 0, 255, 51
    many = to_tensor(images)
    assert many.shape == (2, 3, 4, 5) and many.dtype == torch.float32
    torch.testing.assert_close(many[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    np.testing.assert_allclose((many.numpy() + 1) * 127.5, images.transpose(0, 3, 1, 2), atol=1e-4)
    assert torch.equal(to_tensor(images[1]), many[1])
    assert torch.equal(to_tensor(torch.from_numpy(images)), many)
