# SPDX-License-Identifier: Apache-2.0
"""The parts behind ./dev.  Python 3 standard library only."""
