"""The node as a child process in a ROS domain of its own, which is always ended."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

import gsemsplat_ros

# by which the domain_coordinator of ament_cmake_ros reserves domains: ours are its too
PORT_OF_DOMAIN_0 = 32768
DOMAINS = range(1, 102)  # above, DDS ports reach those that Linux hands out
STOP_WITHIN_S = 10.0
# of Fast DDS 2 (Jazzy) and 3 (Kilted and newer)
PROFILES = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
COMMAND = (sys.executable, '-m', 'gsemsplat_ros.cli', 'node')


def share_file(name: str) -> Path:
    """A file of the package's share folder: in the ROS workspace, the Python environment or the checkout."""
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)), sys.prefix]
    places = [Path(prefix) / 'share' / 'gsemsplat_ros' / name for prefix in prefixes]
    places.append(Path(gsemsplat_ros.__file__).parents[1] / name)
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f'{name} of gsemsplat_ros is in none of {", ".join(map(str, places))}: install the package again'
    )


class NodeProcess:
    """The node with these parameters, from `with` to its end; what it prints goes to the file `log`.

    Sets the environment of this process too, so that its own ROS nodes meet the node: a free domain unless
    ROS_DOMAIN_ID is set, this machine only, and shared memory for images.
    """

    def __init__(self, parameters: dict, log: Path, command: Sequence[str] = COMMAND):
        self.log = log
        self._parameters, self._command = parameters, command
        self._guard: socket.socket | None = None

    def __enter__(self) -> NodeProcess:
        environment = os.environ
        environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        if not any(name in environment for name in PROFILES):  # else the user has chosen
            environment.update(dict.fromkeys(PROFILES, str(share_file('config/fastdds_large_messages.xml'))))
        if 'ROS_DOMAIN_ID' not in environment:
            domain, self._guard = reserve_domain()
            environment['ROS_DOMAIN_ID'] = str(domain)
        parameters = self.log.with_suffix('.yaml')
        parameters.write_text(yaml.safe_dump({'/**': {'ros__parameters': self._parameters}}))
        with open(self.log, 'wb') as output:
            self._process = subprocess.Popen(
                [*self._command, '--ros-args', '--params-file', str(parameters)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, 'PYTHONUNBUFFERED': '1'},
            )
        return self

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """The last line of the log, for an error message."""
        lines = self.log.read_text(errors='replace').strip().splitlines()
        return lines[-1] if lines else 'nothing'

    def __exit__(self, *error: object) -> None:
        try:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass  # it is killed below, as after a second Ctrl-C
        finally:
            self._process.kill()  # nothing happens to a process that has ended
            self._process.wait()
            if self._guard:
                self._guard.close()
                del os.environ['ROS_DOMAIN_ID']


def reserve_domain() -> tuple[int, socket.socket]:
    """A ROS domain that no other user of this convention holds, and the socket that keeps it reserved."""
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        guard = socket.socket()
        try:
            guard.bind(('', PORT_OF_DOMAIN_0 + domain))
            return domain, guard
        except OSError:
            guard.close()
    raise OSError('all ROS domains from 1 to 101 are reserved: set ROS_DOMAIN_ID')
