# SPDX-License-Identifier: Apache-2.0
"""Each door by itself, over a real core."""
