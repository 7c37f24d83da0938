"""The device of a network is chosen by name, or refused in one line."""

import pytest
import torch
from torch.torch_version import TorchVersion

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


@pytest.mark.parametrize(
    'version, old', [('2.5.1', True), ('2.9.1+cu128', True), ('2.10.0', False), ('3.0', False)]
)
def test_a_pytorch_that_is_too_old_is_said_in_one_line(monkeypatch, caplog, version, old):
    monkeypatch.setattr(torch, '__version__', TorchVersion(version))
    choose('cpu')
    assert [record.getMessage().count('\n') for record in caplog.records] == [0] * old
    assert all(f'PyTorch {version} is older than 2.10' in record.getMessage() for record in caplog.records)
