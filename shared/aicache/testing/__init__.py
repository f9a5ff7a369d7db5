"""What tests of and with aicache need: clocks that stand still, an embedder without a model, the store contract.

    from aicache.testing import FakeClock, FakeEmbedder, FailingStore, StoreContract, make_entry

Nothing here imports a test framework. `aicache.testing.machine`, the stateful test, needs hypothesis.
"""

from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract import StoreContract
from aicache.testing._fakes import FailingStore, FakeClock, FakeEmbedder

__all__ = [
    "FailingStore",
    "FakeClock",
    "FakeEmbedder",
    "StoreContract",
    "make_entry",
    "make_key",
    "make_partition",
    "make_vector",
]
