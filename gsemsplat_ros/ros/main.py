"""The node as a process: start, spin, stop on SIGINT or SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.utilities import remove_ros_args

from gsemsplat_ros.network.inference import keep_memory
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros.log import core_log_to
from gsemsplat_ros.ros.node import GsemsplatNode

STOP_WITHIN_S = 1.5  # how long a stop waits for the forward pass in hand


class _Interrupt:
    """Python's side of SIGINT and SIGTERM, however often they come (under launch: twice).

    rclpy's own handlers end `spin`, at a point where it can be left. A KeyboardInterrupt would end it
    anywhere: between the start of a pool thread and its being noted (which then waits for ever), or beside a
    callback that still uses what the main thread destroys. Only the loading of the network, in which nothing
    listens, is interrupted so, once.
    """

    def __init__(self) -> None:
        self.loading = True
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        loading, self.loading = self.loading, False
        if loading:
            raise KeyboardInterrupt

    @staticmethod
    def end() -> None:
        """Nothing is left to stop; the interpreter, on its way out, would bring the deadly default back."""
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


def _spin(node: GsemsplatNode) -> bool:
    """Run callbacks until the process is told to stop; a callback that raises (a message that cannot be
    decoded) is logged and the node lives on. Returns whether running callbacks ended within STOP_WITHIN_S.
    """
    executor = MultiThreadedExecutor(num_threads=3)
    executor.add_node(node)
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            break
        except Exception:
            if not rclpy.ok():
                break  # told to stop while the callback wanted to publish
            node.log.error(f'a callback failed:\n{traceback.format_exc()}')
    executor.shutdown()
    # shutdown() leaves the threads of its pool running, and has no public way to wait for them
    pool = threading.Thread(target=executor._executor.shutdown, daemon=True)
    pool.start()
    pool.join(STOP_WITHIN_S)
    return not pool.is_alive()


def foreign_arguments(arguments: list[str]) -> list[str]:
    """Those of a command line that are no ROS arguments."""
    return remove_ros_args(['gsemsplat', *arguments])[1:]


def main(args: list[str] | None = None, load_pipeline: Callable[..., Pipeline] = Pipeline.load) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 0, or 2 for wrong start parameters."""
    node: GsemsplatNode | None = None
    code, ended = 0, True
    keep_memory()
    interrupt = _Interrupt()  # before rclpy.init, whose handlers call it
    try:
        rclpy.init(args=args)
        node = GsemsplatNode(load_pipeline)
        with core_log_to(node.log):
            if node.parameters.autostart:
                steps = node.trigger_configure, node.trigger_activate
                code = 0 if all(step() == TransitionCallbackReturn.SUCCESS for step in steps) else 2
            interrupt.loading = False
            if not code:
                ended = _spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'gsemsplat: {error}', file=sys.stderr)
        code = 2
    finally:
        interrupt.loading = False
        if node and ended:
            ended = node.release(STOP_WITHIN_S)
            node.destroy_node()
        rclpy.try_shutdown()
        interrupt.end()
    if not ended:  # a forward pass cannot be interrupted; nothing is open that it would have to write
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == '__main__':
    sys.exit(main())
