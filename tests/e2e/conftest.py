# SPDX-License-Identifier: Apache-2.0
"""What pytest needs of the harness: fixtures, markers, a limit on the time of each test."""
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from world import BINARY, World  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "threads: also run under ThreadSanitizer")
    if BINARY is None:
        raise pytest.UsageError("no binary: run ./dev build, or set KOUKAN")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in list(getattr(item, "funcargs", {}).values()):
            if isinstance(value, World):
                report.sections.append(("servers", value.report()))


TEST_SECONDS = 120
SLOW_SECONDS = 400


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """No test waits for ever."""
    def ring(_number, _frame):
        raise TimeoutError("the test took too long")
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SLOW_SECONDS if item.get_closest_marker("slow") else TEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def world(tmp_path):
    """A world of its own, nothing started."""
    it = World(tmp_path)
    yield it
    it.close()


@pytest.fixture(params=["serve", "two"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A running `serve` with a next hop that takes everything; shared by the tests of a module,
    which must leave it as they found it."""
    it = World(tmp_path_factory.mktemp("shared"))
    it.next_hop = it.hop()
    it.start("serve")
    yield it
    it.close()
