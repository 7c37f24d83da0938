"""Starts the node `gsemsplat` and, if asked, RViz.

    ros2 launch gsemsplat_ros gsemsplat.launch.py left:=/camera/infra1/image_rect_raw \\
        left_info:=/camera/infra1/camera_info right:=/camera/infra2/image_rect_raw \\
        right_info:=/camera/infra2/camera_info rviz:=true fixed_frame:=camera_infra1_optical_frame

The node configures and activates itself (parameter autostart).
"""

import os
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

SHARE = Path(get_package_share_directory('gsemsplat_ros'))

# launch argument -> topic of the node
INPUTS = {
    'left': 'left/image_raw',
    'left_info': 'left/camera_info',
    'right': 'right/image_raw',
    'right_info': 'right/camera_info',
    'image': 'image',
    'camera_info': 'camera_info',
}
# what config/gsemsplat.rviz shows; RViz is given the names of the node in its namespace
OUTPUTS = ('gaussians', 'map', 'objects/markers', 'pose', 'relevancy/image')
SHOWN_INPUT = '/left/image_raw'

ARGUMENTS = [
    (
        'params_file',
        str(SHARE / 'config' / 'gsemsplat.yaml'),
        'YAML file with the parameters of the node',
        None,
    ),
    ('namespace', '', 'Namespace of the node; topics and the service query move with it', None),
    ('mode', '', 'stereo or sequential; empty: what params_file says', ['', 'stereo', 'sequential']),
    (
        'image_transport',
        '',
        'raw, or compressed for <image topic>/compressed; empty: what params_file says',
        ['', 'raw', 'compressed'],
    ),
    ('map_frame', '', 'Fixed frame of TF, e.g. odom; empty: what params_file says', None),
    ('left', INPUTS['left'], 'Topic of the left images (sensor_msgs/Image), stereo mode', None),
    (
        'left_info',
        INPUTS['left_info'],
        'Topic of the left camera_info (sensor_msgs/CameraInfo), stereo mode',
        None,
    ),
    ('right', INPUTS['right'], 'Topic of the right images, stereo mode', None),
    (
        'right_info',
        INPUTS['right_info'],
        'Topic of the right camera_info; its P[3] carries the baseline [px m]',
        None,
    ),
    ('image', INPUTS['image'], 'Topic of the images, sequential mode', None),
    (
        'camera_info',
        INPUTS['camera_info'],
        'Topic of the camera_info, sequential mode (may be missing)',
        None,
    ),
    ('enclave', '', 'Enclave of SROS 2, e.g. /gsemsplat; empty: none is named', None),
    ('use_sim_time', 'false', 'Take the time from /clock (simulation, bags)', ['true', 'false']),
    ('log_level', 'info', 'Least severity that the node logs', ['debug', 'info', 'warn', 'error', 'fatal']),
    ('rviz', 'false', 'Start RViz too', ['true', 'false']),
    (
        'fixed_frame',
        'left_camera_optical_frame',
        'Fixed frame of RViz: any frame that TF connects with the camera, or the frame_id of its images',
        None,
    ),
]


def mode_of(params_file):
    """The parameter `mode` of a file of parameters; '' where it has none, or the node will say why not."""
    try:
        found = [yaml.safe_load(Path(params_file).read_text())]
    except (OSError, ValueError, yaml.YAMLError):
        return ''
    for level in found:  # it grows: namespaces lie in each other
        if isinstance(level, dict):
            if isinstance(own := level.get('ros__parameters'), dict) and 'mode' in own:
                return own['mode']
            found.extend(level.values())
    return ''


def start(context):
    """The processes, with the arguments' values known."""
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    overrides = {'use_sim_time': ParameterValue(value['use_sim_time'] == 'true', value_type=bool)}
    overrides |= {name: value[name] for name in ('mode', 'image_transport', 'map_frame') if value[name]}
    processes = [
        Node(
            package='gsemsplat_ros',
            executable='gsemsplat',
            name='gsemsplat',
            namespace=value['namespace'],
            arguments=['node'],
            parameters=[value['params_file'], overrides],
            output='screen',
            remappings=[(topic, value[name]) for name, topic in INPUTS.items() if value[name] != topic],
            ros_arguments=['--log-level', value['log_level']]
            + (['--enclave', value['enclave']] if value['enclave'] else []),
        )
    ]
    if value['rviz'] == 'true':
        mode = value['mode'] or mode_of(value['params_file'])
        image = value['image' if mode == 'sequential' else 'left']
        processes.append(
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz',
                namespace=value['namespace'],
                arguments=['-d', str(SHARE / 'config' / 'gsemsplat.rviz'), '-f', value['fixed_frame']],
                parameters=[{'use_sim_time': overrides['use_sim_time']}],
                remappings=[
                    (SHOWN_INPUT, image),
                    *((f'/gsemsplat/{topic}', f'gsemsplat/{topic}') for topic in OUTPUTS),
                ],
            )
        )
    return processes


def generate_launch_description():
    """Arguments, environment, processes."""
    actions = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    # Fast DDS loses most large best-effort images between processes on its default transport. Version 2
    # (Jazzy) and version 3 (Kilted and newer) read variables of different names; other middlewares read
    # neither.
    names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    if not any(name in os.environ for name in names):  # else the user has chosen
        profile = str(SHARE / 'config' / 'fastdds_large_messages.xml')
        actions += [SetEnvironmentVariable(name, profile) for name in names]
    return LaunchDescription([*actions, OpaqueFunction(function=start)])
