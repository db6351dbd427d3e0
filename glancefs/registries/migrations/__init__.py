# SPDX-License-Identifier: Apache-2.0
"""The steps that lead from one schema of the database to the next, for Alembic."""
