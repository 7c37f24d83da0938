"""Starts the node with a fake pipeline many times, each stopped by a signal at another of its function calls:
`python interrupted_starts.py CALL ...`. Prints a line for each: call, exit status, where the signal came.
"""

import os
import signal
import sys

from support.node_program import FakePipeline

from gsemsplat_ros.ros.main import main

WITHIN_S = 30


def start(call: int, told: int) -> None:
    """The node in this process, which sends itself a signal at its `call`-th function call or return."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += 1
        if count == call:
            sys.setprofile(None)
            where = f'{frame.f_code.co_filename}:{frame.f_lineno} {event}'
            os.write(told, where.encode())
            os.kill(os.getpid(), signal.SIGTERM if call % 2 else signal.SIGINT)

    signal.alarm(WITHIN_S)  # deadly: exit status -14
    sys.setprofile(counted)
    status = main(['node', '--ros-args', '--log-level', 'warn'], FakePipeline.load)
    sys.setprofile(None)
    os._exit(status)


if __name__ == '__main__':
    for call in map(int, sys.argv[1:]):
        sys.stdout.flush()
        told, tell = os.pipe()
        child = os.fork()  # what takes seconds, the imports, was done once
        if not child:
            start(call, tell)
        os.close(tell)
        where = os.read(told, 1000).decode()
        os.close(told)
        print(call, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), where or 'not reached')
