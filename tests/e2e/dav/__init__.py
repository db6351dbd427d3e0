# SPDX-License-Identifier: Apache-2.0
"""The mount, driven by real tools."""
