# SPDX-License-Identifier: Apache-2.0
"""A mount of a server, from end to end."""
