"""The worker's order: jobs first and each once, of inputs the newest; that nothing ends it; and which
parameters make jobs.
"""

import threading
from dataclasses import fields

import cv2
import pytest

from gsemsplat_ros.ros.node import OF_THE_ANSWERS, OF_THE_CLOUD, OF_THE_MAP
from gsemsplat_ros.ros.parameters import Parameters, differing
from gsemsplat_ros.ros.worker import Mailbox, Worker


def test_jobs_come_before_the_newest_input_and_a_waiting_one_is_done_once():
    mailbox, done = Mailbox(), []

    def publish():
        done.append('publish')

    def answer():
        done.append('answer')

    mailbox.put('old')
    for job in publish, answer, publish:
        mailbox.request(job)
    mailbox.put('new')
    for _ in range(3):
        mailbox.take(done.append)()
    assert done == ['publish', 'answer', 'new'] and mailbox.dropped == 1
    mailbox.request(publish)  # again: the first one is done
    mailbox.take(done.append)()
    assert done[3:] == ['publish']
    mailbox.close()
    assert mailbox.take(done.append) is None


def test_the_parameters_that_make_work_are_live_ones():
    live = {field.name for field in fields(Parameters) if field.metadata['live']}
    assert live >= OF_THE_CLOUD | OF_THE_MAP | OF_THE_ANSWERS
    changed = Parameters(max_points=7, robot_radius_m=0.5)
    assert differing(Parameters(), changed) == {'max_points', 'robot_radius_m'}


WITHIN_S = 10.0


class Panic(BaseException):
    """As pyo3 raises it."""


@pytest.mark.parametrize(
    'error',
    [
        ValueError,
        RuntimeError,
        cv2.error,
        MemoryError,
        KeyError,
        StopIteration,
        SystemExit,
        GeneratorExit,
        Panic,
    ],
)
@pytest.mark.parametrize('complaining_fails', [False, True])
@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_no_exception_ends_the_worker(error, complaining_fails, capfd):
    failed, complained, done = [], threading.Semaphore(0), threading.Event()

    def work(item):
        if item == 'bad':
            raise error('an input')
        done.set()

    def complain(problem):
        failed.append(problem)
        complained.release()
        if complaining_fails:
            raise UnicodeEncodeError('utf-8', '\ud800', 0, 1, 'surrogates not allowed')

    def job():
        raise error('a job')

    worker = Worker(work, complain)
    try:
        worker.mailbox.request(job)
        assert complained.acquire(timeout=WITHIN_S)
        worker.mailbox.put('bad')
        assert complained.acquire(timeout=WITHIN_S)
        worker.mailbox.put('good')
        assert done.wait(WITHIN_S)
        assert [type(problem) for problem in failed] == [error, error]
    finally:
        assert worker.stop(WITHIN_S)
