"""The device of a network is chosen by name, or refused in one line."""

import pytest
import torch

from gsemsplat_ros.device import choose


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert choose('auto') == choose('cuda') == torch.device('cuda')
    assert choose('cpu') == torch.device('cpu')


def test_without_cuda_auto_is_the_cpu_and_cuda_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert choose('auto') == choose('cpu') == torch.device('cpu')
    with pytest.raises(ValueError, match=r"'cuda' is not available to PyTorch here: use 'cpu' or install"):
        choose('cuda')


def test_another_name_is_an_error():
    with pytest.raises(ValueError, match="device 'tpu': wanted 'auto', 'cpu' or 'cuda'"):
        choose('tpu')
