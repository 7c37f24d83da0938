"""Which Gaussians belong to the objects of an answer."""

import numpy as np

from gsemsplat_ros.semantics.answer import Answer, GaussianArrays
from gsemsplat_ros.semantics.members import members_of
from gsemsplat_ros.semantics.objects import Object


def answer(relevancy, lit, *boxes):
    arrays = GaussianArrays(np.array(relevancy, np.float32), np.array(lit, bool))
    return Answer('chair', None, bool(boxes), 0.9, None, None, boxes, gaussians=arrays)


def test_lit_around_and_hidden_ones_about_the_box():
    x = np.array([0.0, 0.56, 0.7, 0.1, 0.2, 0.3, 5.0])  # the box ends at 0.5, what is about it at 0.575
    relevancy = [0.9, 0.9, 0.9, 0.8, 0.1, np.nan, np.nan]
    box = Object((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.9)
    members = members_of(answer(relevancy, [1, 1, 1, 0, 0, 0, 0], box), np.stack([x, 0 * x, 0 * x], 1))
    assert members.tolist() == [True, True, False, True, False, True, False]


def test_nothing_found_has_no_members():
    assert not members_of(answer([0.2, np.nan], [0, 0]), np.zeros((2, 3))).any()
