# SPDX-License-Identifier: Apache-2.0
"""The HTTP layer: one server, and the doors behind it."""
