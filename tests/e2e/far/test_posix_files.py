# SPDX-License-Identifier: Apache-2.0
"""What the tests of the mount show of posix_files, by way of a server.

Threading: see there.
"""

from tests.e2e.mount.test_posix_files import *  # noqa: F403 - all of them are run here too
