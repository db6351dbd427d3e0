# SPDX-License-Identifier: Apache-2.0
"""What mount(8) and umount(8) call for file systems of type glancefs."""
