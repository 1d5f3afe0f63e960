"""What the tests of all executors compare: a study here and on a cluster."""

import pytest
from slow_study import SlowStudy


@pytest.fixture(scope="session")
def expected(phantom, tmp_path_factory):
    """The scores of the study on this machine alone."""
    study = SlowStudy(phantom, tmp_path_factory.mktemp("local") / "study")
    study.run()
    return study.scores()


@pytest.fixture
def study(phantom, tmp_path):
    return SlowStudy(phantom, tmp_path / "a study")
