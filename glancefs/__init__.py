# SPDX-License-Identifier: Apache-2.0
"""One image store, three doors: the core, the mount and the command line."""

__version__ = "0.1.0.dev0"
