# SPDX-License-Identifier: Apache-2.0
"""The images API over REST."""
