"""The pretended GPU of the tests: it finds what a real one would refuse or wait for, and its values are the
CPU's."""

import numpy as np
import pytest
import torch
from support.pretend_gpu import GpuTensor, PretendGPU

pytestmark = pytest.mark.fake_cuda


@pytest.fixture
def gpu():
    with PretendGPU() as gpu:
        yield gpu


def test_it_is_there_until_its_end():
    with PretendGPU():
        assert torch.cuda.is_available() and torch.zeros(3, device='cuda').is_cuda
    assert torch.cuda.is_available() == (torch.version.cuda is not None and torch.cuda.device_count() > 0)


def test_values_are_the_cpus(gpu):
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    wanted = layer(x).relu().mean((2, 3))
    wanted.square().sum().backward()
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    layer.to('cuda')
    assert isinstance(layer.weight, torch.nn.Parameter) and layer.weight.device == torch.device('cuda', 0)
    got = layer(x.cuda()).relu().mean((2, 3))
    got.square().sum().backward()
    torch.testing.assert_close(got.cpu(), wanted)
    torch.testing.assert_close(layer.weight.grad.cpu(), gradient)
    layer.to(torch.bfloat16)
    assert layer.weight.held.dtype == layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize('inference', [False, True])
def test_memory_is_shared_as_on_a_gpu(gpu, inference):
    with torch.inference_mode(inference):
        x = torch.arange(6.0, device='cuda').view(2, 3)
        x[0].zero_()
        x[:, 1] += 10
        rows = torch.empty(2, 3, device='cuda')
        torch.add(x, 1, out=rows)
        assert x.cpu().tolist() == [[0, 10, 0], [3, 14, 5]]
        assert rows.cpu().tolist() == [[1, 11, 1], [4, 15, 6]]
        assert x.mul_(2) is x and x[1, 2].item() == 10


REFUSED = (
    (lambda x: x.numpy(), TypeError, 'numpy'),
    (lambda x: np.asarray(x), TypeError, 'numpy'),
    (lambda x: x + torch.ones(3), RuntimeError, 'at least two devices'),
    (lambda x: torch.cat((x, torch.ones(3))), RuntimeError, 'at least two devices'),
    (lambda x: x.pin_memory(), RuntimeError, 'cannot pin'),
)


@pytest.mark.parametrize('operation, error, words', REFUSED)
def test_what_cuda_refuses_is_refused(gpu, operation, error, words):
    with pytest.raises(error, match=words):
        operation(torch.ones(3, device='cuda'))


COUNTED = (  # an operation, and what is to be seen of it
    (lambda x: x[0].item(), 'reads', '_local_scalar_dense'),
    (lambda x: bool(x[0] > 0), 'reads', '_local_scalar_dense'),
    (lambda x: x[x > 0], 'reads', 'index by a mask'),
    (lambda x: x.nonzero(), 'reads', 'nonzero'),
    (lambda x: x.unique(), 'reads', '_unique2'),
    (
        lambda x: torch.repeat_interleave(x, torch.ones(3, dtype=torch.long, device='cuda')),
        'reads',
        'repeat_interleave',
    ),
    (lambda x: x.cpu(), 'down', 3),
    (lambda x: x.tolist(), 'down', 3),
    (lambda x: torch.ones(5).to('cuda'), 'up', 5),
    (lambda x: torch.tensor([1.0, 2.0], device='cuda'), 'up', 2),
    (lambda x: torch.as_tensor(np.ones(4), device=x.device), 'up', 4),
    (lambda x: x.new_tensor([1.0, 2.0]), 'up', 2),
    (lambda x: x.copy_(torch.ones(3)), 'up', 3),
    (lambda x: x[torch.tensor([0, 2])], 'up', 2),
)


@pytest.mark.parametrize('operation, what, wanted', COUNTED)
def test_what_waits_or_copies_is_counted_and_refused_in_a_capture(gpu, operation, what, wanted):
    x = torch.ones(3, device='cuda')
    with gpu.watch() as seen:
        operation(x)
    assert getattr(seen, what) == [wanted]
    assert [seen.up, seen.down, seen.reads].count([]) == 2
    with pytest.raises(RuntimeError, match='not permitted when stream is capturing'), capture():
        operation(x)
    with gpu.watch() as seen:
        (x * 2 + torch.zeros(3, device='cuda')).sum()
    assert (seen.up, seen.down, seen.reads, seen.waits) == ([], [], [], 0)


def capture():
    return torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode='thread_local')


def test_a_wait_in_a_capture_is_refused(gpu):
    with pytest.raises(RuntimeError, match='not permitted when stream is capturing'), capture():
        torch.cuda.synchronize()


def test_a_replay_does_again_what_was_captured_and_nothing_of_python(gpu):
    x, count = torch.ones(3, device='cuda'), 0

    def work():
        nonlocal count
        count += 1
        return x.view(3)[:2] * 2 + count

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    held = out.held
    x.fill_(5)
    graph.replay()
    assert out.cpu().tolist() == [11, 11] and count == 1  # not 12: Python's part stays as it was
    assert out.held is held  # the next replay overwrites what was not copied


def test_a_tensor_larger_than_its_memory_is_refused(gpu):
    gpu.largest = 100
    with pytest.raises(torch.OutOfMemoryError, match='CUDA out of memory'):
        torch.ones(26, device='cuda')
    assert isinstance(torch.ones(25, device='cuda'), GpuTensor)
