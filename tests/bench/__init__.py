# SPDX-License-Identifier: Apache-2.0
"""Speed beside real peers, and the budgets that hold."""
