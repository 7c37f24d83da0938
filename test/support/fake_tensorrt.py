"""The part of TensorRT's Python interface that docs/jetson.md uses, with ONNX Runtime in its place.

An engine is an ONNX file. Addresses are those of tensors on the CPU, and the stream is ignored.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import onnxruntime

TensorIOMode = SimpleNamespace(INPUT='input', OUTPUT='output')
DTYPES = {'tensor(uint8)': np.uint8, 'tensor(float)': np.float32}


class Logger:
    WARNING = 1

    def __init__(self, severity):
        self.severity = severity


class Runtime:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, data):
        return Engine(onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider']))


class Engine:
    def __init__(self, session):
        self.session = session
        self.inputs = {each.name: each for each in session.get_inputs()}
        self.tensors = {**self.inputs, **{each.name: each for each in session.get_outputs()}}

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_shape(self, name):
        return list(self.tensors[name].shape)

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name, address):
        assert name in self.engine.tensors
        self.addresses[name] = address

    def memory(self, name):
        """The array at the address that was given for the tensor."""
        tensor = self.engine.tensors[name]
        dtype = np.dtype(DTYPES[tensor.type])
        count = int(np.prod(tensor.shape))
        raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(raw, dtype).reshape(tensor.shape)

    def execute_async_v3(self, stream):
        outputs = [name for name in self.engine.tensors if name not in self.engine.inputs]
        feeds = {name: self.memory(name) for name in self.engine.inputs}
        for name, found in zip(outputs, self.engine.session.run(outputs, feeds)):
            self.memory(name)[...] = found
        return True
