# SPDX-License-Identifier: Apache-2.0
"""The registry served to other hosts: the images' metadata without their data."""
