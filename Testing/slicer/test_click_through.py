"""The whole way through the panel, buttons pressed; the same checks run in the real application."""

import pytest

pytestmark = pytest.mark.bed

pytestmark = pytest.mark.slow


class Case:
    """The assertions of unittest, for the checks of CrossModaSegTest."""

    def __init__(self, weights):
        import unittest

        self._case = unittest.TestCase()
        self.weights = str(weights)

    def __getattr__(self, name):
        return getattr(self._case, name)


@pytest.mark.parametrize(
    "check", ["check_opens_empty", "check_refuses_a_volume_without_geometry", "check_click_through"]
)
def test_the_self_test_of_the_module(application, panel, weights, check):
    from CrossModaSegLib import selftest

    assert getattr(selftest, check) in selftest.CHECKS
    before = len(application.vtk_errors())
    getattr(selftest, check)(Case(weights))
    errors = application.vtk_errors()[before:]
    assert errors == [], "\n".join(sorted(set(errors)))
