"""Which answers stand in the markers."""

from gsemsplat_ros.ros.parameters import MAX_QUERIES
from gsemsplat_ros.ros.shown import Shown


def test_of_the_answers_of_services_the_newest_are_kept():
    shown = Shown()
    shown.stand({'chair': 'c0', 'door': 'd0'})
    for number in range(150):
        shown.ask(f'thing {number}', number)
    assert shown.all == ['c0', 'd0', *range(150 - MAX_QUERIES, 150)]
    shown.ask('thing 120', 'again')
    shown.ask('new', 'new')
    assert shown.all[2] == 119 and shown.all[-2:] == ['again', 'new'] and len(shown.all) == 2 + MAX_QUERIES


def test_standing_queries_that_are_asked_again_leave_the_answers_of_services():
    shown = Shown()
    shown.stand({'chair': 'c0'})
    shown.ask('lamp', 'l1')
    shown.ask('door', 'd1')
    shown.stand({'door': 'd2'})
    assert shown.all == ['d2', 'l1']
    shown.ask('door', 'd3')  # with other limits than the standing query has
    assert shown.all == ['d3', 'l1']
    shown.clear()
    assert shown.all == []
