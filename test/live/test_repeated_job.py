"""A job that is asked for more often than it can be done."""

import threading

from gsemsplat_ros.live.repeated_job import RepeatedJob

DEADLINE_S = 60.0


def test_it_runs_once_at_a_time_and_once_more_after_the_newest_request():
    runs, started, release = [], threading.Event(), threading.Event()

    def work():
        runs.append(len(runs))
        started.set()
        release.wait(DEADLINE_S)

    threads = []

    def submit(function):
        threads.append(threading.Thread(target=function))
        threads[-1].start()

    job = RepeatedJob(work, submit)
    job.request()
    assert started.wait(DEADLINE_S)
    for _ in range(10):
        job.request()
    assert runs == [0] and len(threads) == 1
    release.set()
    threads[0].join(DEADLINE_S)
    assert runs == [0, 1]
    job.request()
    threads[1].join(DEADLINE_S)
    assert runs == [0, 1, 2]


def test_a_closed_job_runs_no_more():
    runs = []
    job = RepeatedJob(lambda: runs.append(1), lambda function: function())
    job.request()
    job.close()
    job.request()
    assert runs == [1]
