# SPDX-License-Identifier: Apache-2.0
"""What the tests of the mount show of semantics, by way of a server.

Threading: see there.
"""

from tests.e2e.mount.test_semantics import *  # noqa: F403 - all of them are run here too
