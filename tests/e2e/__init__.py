# SPDX-License-Identifier: Apache-2.0
"""The whole product, driven by real tools."""
