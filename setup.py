"""Installs gsemsplat_ros with pip; with colcon, CMakeLists.txt does. requirements.lock pins the versions."""

from glob import glob

from setuptools import find_packages, setup

NAME = 'gsemsplat_ros'
SHARE = 'share/' + NAME

setup(
    name=NAME,
    version='0.1.0',
    description='Semantic 3D Gaussians from two camera images, searched with words, for ROS 2',
    maintainer='The gsemsplat_ros authors',  # reached by the issue tracker of the repository
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[NAME, NAME + '.*']),
    package_data={NAME: ['py.typed', 'weights/*.safetensors', '**/*.json', '**/*.html', '**/*.txt']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + NAME]),
        (SHARE, ['package.xml']),
        (SHARE + '/launch', glob('launch/*')),
        (SHARE + '/config', glob('config/*')),
    ],
    install_requires=[
        'numba',
        'numpy',
        'opencv-python-headless',
        'pillow',
        'pyyaml',
        'scipy',
        'tokenizers',
        'torch>=2.10',  # mends CVE-2025-32434 and CVE-2026-24747
        'tqdm',
    ],
    extras_require={
        'ros': [  # the node and its clients, where no ROS installation is sourced
            'gsemsplat-msgs',  # from ./msg: `pip install ./msg ".[ros]"`
            'ros-rclpy[fastrtps]',
            'ros-action-msgs',
            'ros-diagnostic-msgs',
            'ros-geometry-msgs',
            'ros-lifecycle-msgs',
            'ros-rosgraph-msgs',
            'ros-sensor-msgs',
            'ros-std-msgs',
            'ros-std-srvs',
            'ros-visualization-msgs',
        ],
        'cuda': ['gsplat'],  # the fast renderer on NVIDIA GPUs
        'openclip': ['open_clip_torch'],  # text encoder of the public checkpoints
        # of Depth Anything 3, which itself comes without its requirements: docs/backbones.md
        'da3': ['addict', 'einops', 'omegaconf'],
        'onnx': ['onnx', 'onnxscript'],  # `gsemsplat weights export`
        'viewer': ['av', 'viser'],  # `gsemsplat view`, videos
        'bags': ['rosbags'],  # bag files without a ROS installation
        'training': ['moderngl', 'tensorboard', 'trimesh'],
        'test': [
            'gaussforge',  # reads splat files
            'gsplat',
            'onnxruntime',
            'pygltflib',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'safetensors',
            'selenium',
            'tinyusdz; python_version >= "3.11"',  # reads OpenUSD
        ],
        'docs': ['mkdocs-material', 'mkdocstrings-python'],  # `make docs`
        'dev': ['mypy', 'pytest-randomly', 'ruff', 'types-PyYAML'],
    },
)
