"""Optuna's own tests of storages, on the journal."""

from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from search.storage.stores import JournalStore


class TestJournalStore(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return JournalStore(tmp_path / "j").backend
