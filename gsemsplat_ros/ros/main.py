"""The node as a process: start, spin, stop on SIGINT or SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from gsemsplat_ros.network.inference import keep_memory
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros.arguments import mistake
from gsemsplat_ros.ros.log import core_log_to
from gsemsplat_ros.ros.node import GsemsplatNode

STOP_WITHIN_S = 1.5  # how long a stop waits for the forward pass in hand


class _Interrupt:
    """Python's side of SIGINT and SIGTERM, however often they come (under launch: twice).

    rclpy's own handlers end `spin`, at a point where it can be left. A KeyboardInterrupt would end it
    anywhere: with a lock of rclpy held that its shutdown waits for, between the start of a pool thread and
    its being noted, or beside a callback that still uses what the main thread destroys. Only the loading of
    the network at the start, in which nothing listens, is interrupted so, once.

    told: whether a signal came.
    """

    def __init__(self) -> None:
        self.told = self._loading = False
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.told = True
        if self._loading:
            self._loading = False
            raise KeyboardInterrupt

    def within(self, load: Callable[..., Pipeline]) -> Callable[..., Pipeline]:
        """`load` that can be interrupted, where the main thread calls it."""

        def loaded(*args: Any, **names: Any) -> Pipeline:
            try:
                self._loading = threading.current_thread() is threading.main_thread()
                if self._loading and self.told:  # before rclpy listened
                    raise KeyboardInterrupt
                return load(*args, **names)
            finally:
                self._loading = False

        return loaded

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
        except InvalidHandle:
            node.log.warning('a request in hand is lost: a cleanup took its service or topic down meanwhile')
        except Exception:
            if not rclpy.ok():  # told to stop while it waited
                break
            node.log.error(f'a callback failed:\n{traceback.format_exc()}')
    executor.shutdown()
    # shutdown() leaves the threads of its pool running, and has no public way to wait for them
    pool = threading.Thread(target=executor._executor.shutdown, daemon=True)
    pool.start()
    pool.join(STOP_WITHIN_S)
    return not pool.is_alive()


def main(args: list[str] | None = None, load_pipeline: Callable[..., Pipeline] = Pipeline.load) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 0, or 2 for wrong arguments."""
    node: GsemsplatNode | None = None
    code, ended, listening = 0, True, False
    keep_memory()
    interrupt = _Interrupt()  # before rclpy.init, whose handlers call it
    try:
        rclpy.init(args=args)
        listening = True
        node = GsemsplatNode(interrupt.within(load_pipeline))
        with core_log_to(node.log):
            if node.parameters.autostart:
                steps = node.trigger_configure, node.trigger_activate
                code = 0 if all(step() == TransitionCallbackReturn.SUCCESS for step in steps) else 2
            if not code and not interrupt.told:
                ended = _spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        # at a signal rclpy shuts down under what is being made, a moment before Python hears of it
        interrupt.told |= listening and not rclpy.ok()
        if not interrupt.told:
            words = str(error) if isinstance(error, ValueError) else mistake(error)
            if not words:
                raise
            print(f'gsemsplat: {words}', file=sys.stderr)
        code = 2
    finally:
        if node and ended:
            ended = node.release(STOP_WITHIN_S)
            node.destroy_node()
        rclpy.try_shutdown()
        interrupt.end()
    code = 0 if interrupt.told else code
    if not ended:  # a forward pass cannot be interrupted; nothing is open that it would have to write
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == '__main__':
    sys.exit(main())
