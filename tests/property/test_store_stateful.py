"""`MemoryStore` against a dict, under random operations."""

from hypothesis import settings

from aicache.stores.base import Store
from aicache.stores.memory import MemoryStore
from aicache.testing.machine import StoreMachine


class MemoryStoreMachine(StoreMachine):
    def make_store(self) -> Store:
        return MemoryStore()


class TestMemoryStore(MemoryStoreMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
