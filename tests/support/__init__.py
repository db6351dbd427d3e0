# SPDX-License-Identifier: Apache-2.0
"""What the tests share: capabilities, processes, log and leak checks."""
