"""The node of node_program.py, or of another program here, as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TEST = Path(__file__).resolve().parents[1]  # so that programs import `support`
DEADLINE_S = 60.0  # a busy machine may be slow; a test that waits this long fails


class NodeProcess:
    """A program of this folder with ROS arguments; collects its output."""

    def __init__(self, *ros_args, domain, program='node_program.py'):
        environment = dict(
            os.environ,
            ROS_DOMAIN_ID=str(domain),
            ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
            PYTHONUNBUFFERED='1',
            PYTHONPATH=os.pathsep.join(filter(None, (str(TEST), os.environ.get('PYTHONPATH')))),
        )
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(program)), '--ros-args', *ros_args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.output = ''
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.output += line

    def wait_for(self, text, deadline_s=3 * DEADLINE_S):  # starting takes longest
        """Wait until the process has printed `text`."""
        end = time.monotonic() + deadline_s
        while text not in self.output:
            assert time.monotonic() < end and self._process.poll() is None, f'no {text!r} in:\n{self.output}'
            time.sleep(0.01)

    def interrupt(self):
        """Send one SIGINT."""
        self._process.send_signal(signal.SIGINT)

    @property
    def pid(self):
        return self._process.pid

    @property
    def active(self):
        """Whether the node has started and is running."""
        return 'waiting for' in self.output and self._process.poll() is None

    def stop(self, *, times=1):
        """Send SIGINT and assert a clean end: status 0, no thread left, no KeyboardInterrupt."""
        for _ in range(times):
            self.interrupt()
        status = self.wait()
        assert status == 0 and 'left over: []' in self.output, self.output[-3000:]
        assert 'KeyboardInterrupt' not in self.output, self.output[-3000:]

    def wait(self):
        """Wait for the end; returns the exit status."""
        status = self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status

    def kill(self):
        """Kill the process if it runs, and free its resources."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(DEADLINE_S)
        self._process.stdout.close()
