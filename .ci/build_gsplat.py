"""Compiles gsplat once, into a folder for other machines: `python build_gsplat.py FOLDER`.

gsplat compiles itself where it is first used, which takes minutes and the CUDA toolkit. The folder made here
needs neither on machines with the same versions of Python, PyTorch and CUDA: PYTHONPATH=FOLDER. It is for
the GPUs of TORCH_CUDA_ARCH_LIST (9.0: H100 and H200), without that for those of this machine. MAX_JOBS files
are compiled at once; an interrupted build goes on where it was.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

VERSION = '1.5.3'  # of gsplat; others have other sources


def build(folder: Path) -> None:
    """gsplat's Python files in `folder`, beside them its operators as `gsplat/csrc.so`, where it looks first.
    Raises RuntimeError if something is missing or does not compile."""
    try:
        import torch
        from torch.utils import cpp_extension

        package = importlib.metadata.distribution('gsplat')
    except ImportError as error:
        raise RuntimeError(f'{sys.executable} has no PyTorch or no gsplat: {error}') from None
    if package.version != VERSION:
        raise RuntimeError(f'gsplat {package.version} is installed: {VERSION} is wanted')
    if not torch.version.cuda or not cpp_extension.CUDA_HOME:
        raise RuntimeError('a PyTorch for CUDA and the CUDA toolkit (nvcc) are needed')
    if not torch.cuda.is_available() and 'TORCH_CUDA_ARCH_LIST' not in os.environ:
        raise RuntimeError('no GPU here to compile for: set TORCH_CUDA_ARCH_LIST=9.0, say')

    cuda = Path(str(package.locate_file('gsplat/cuda')))
    sources = [*cuda.glob('csrc/*.cu'), *cuda.glob('csrc/*.cpp'), cuda / 'ext.cpp']
    # a slim toolkit lacks headers (cuBLAS, cuSPARSE) that came with PyTorch; these are looked for last
    headers = [str(path) for path in Path(torch.__file__).parents[1].glob('nvidia/*/include')]
    given = os.environ.get('CPLUS_INCLUDE_PATH')
    os.environ['CPLUS_INCLUDE_PATH'] = os.pathsep.join([given, *headers] if given else headers)
    made = folder / 'build'
    made.mkdir(parents=True, exist_ok=True)
    cpp_extension.load(
        'csrc',
        sorted(map(str, sources)),
        extra_cflags=['-O3', '-Wno-attributes'],
        extra_cuda_cflags=['-O3', '-use_fast_math'],
        extra_include_paths=[str(cuda / 'include'), str(cuda / 'csrc' / 'third_party' / 'glm')],
        build_directory=str(made),
        verbose=True,
    )
    for file in package.files or ():
        if 'csrc' not in file.parts and '__pycache__' not in file.parts and '..' not in file.parts:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), folder / file)
    shutil.move(made / 'csrc.so', folder / 'gsplat' / 'csrc.so')
    shutil.rmtree(made)


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    try:
        build(folder)
    except RuntimeError as error:
        print(f'gsplat cannot be compiled: {error}', file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    print(f'gsplat {VERSION}: {folder}, {size / 1e6:.0f} MB; where it is to be used: PYTHONPATH={folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
