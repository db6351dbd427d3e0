# SPDX-License-Identifier: Apache-2.0
"""The contract of the use cases over those of this process.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

from tests.contract.use_case_contract import UseCaseContract
from tests.support.use_cases import Here


class TestUseCasesHere(UseCaseContract):
    def make(self, folder: Path) -> Here:
        return Here(folder)
