"""The worker's order: jobs first and each once, of inputs the newest; and which parameters make jobs."""

from dataclasses import fields

from gsemsplat_ros.ros.node import OF_THE_ANSWERS, OF_THE_CLOUD, OF_THE_MAP
from gsemsplat_ros.ros.parameters import Parameters, differing
from gsemsplat_ros.ros.worker import Mailbox


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
