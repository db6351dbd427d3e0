# SPDX-License-Identifier: Apache-2.0
"""The tests of glancefs; tests.support holds what they share."""
