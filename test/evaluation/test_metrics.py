"""Measures of scores against presence, and intervals of what is no mean, by hand."""

import numpy as np
import pytest

from gsemsplat_ros.evaluation.metrics import auc, calibration_error, pooled_interval


def test_auc():
    present = np.array([True, True, False, False, False])
    assert auc(np.array([0.9, 0.4, 0.4, 0.5, 0.1]), present) == pytest.approx((3 + 1.5) / 6)
    assert auc(np.array([5.0, 4, 3, 2, 1]), present) == 1
    assert auc(np.zeros(5), present) == 0.5
    assert np.isnan(auc(np.zeros(2), np.array([True, True]))) and np.isnan(
        auc(np.zeros(0), np.zeros(0, bool))
    )


def test_calibration_error():
    assert calibration_error(np.array([1.0, 1.0, 0.0]), np.array([True, True, False])) == 0
    assert calibration_error(np.array([1.0, 0.0]), np.array([False, True])) == 1
    # one bin: mean 0.65 against a half
    assert calibration_error(np.array([0.62, 0.68]), np.array([True, False])) == pytest.approx(0.15)
    # two bins, whose errors do not make up for each other: 0.3 three times, 0.3 once
    scores, present = np.array([0.7, 0.7, 0.7, 0.3]), np.array([True, True, True, False])
    assert calibration_error(scores, present) == pytest.approx(0.3)
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_intervals_draw_whole_groups():
    groups = [np.array([1.0, 2, 3]), np.array([7.0, 8, 9]), np.zeros(0)]

    def median(values):
        return float(np.median(values))

    assert pooled_interval(groups, median) == (2, 8)
    assert pooled_interval(groups[1:], median) is None
    assert pooled_interval(groups, lambda values: float('nan')) is None
    many = [np.array([float(i)]) for i in range(400)]
    low, high = pooled_interval(many, lambda values: float(values.mean()))
    assert high - low == pytest.approx(2 * 1.96 * 400 / np.sqrt(12) / 20, rel=0.1)
