#!/usr/bin/env bash
# The workspace, and with it ROS, in the environment of what the container runs.
set -e
source /ws/install/setup.bash
exec "$@"
