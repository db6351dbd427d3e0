# SPDX-License-Identifier: Apache-2.0
"""What administrators do with a file system type, on a machine apart."""
