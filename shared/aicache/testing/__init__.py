"""What tests of and with aicache need: still clocks, an embedder without a model, faults, the store contract.

    from aicache.testing import ChaosStore, FakeClock, FakeEmbedder, FaultProxy, StoreContract, make_entry

docs/testing.md shows how an application's own tests use them. Nothing here imports a test framework.
`aicache.testing.machine`, the stateful test, needs hypothesis.
"""

from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._chaos import ChaosStore
from aicache.testing._chaos_faults import ChaosFaults
from aicache.testing._contract import StoreContract
from aicache.testing._fakes import FailingStore, FakeClock, FakeEmbedder
from aicache.testing._proxy import FaultMode, FaultProxy

__all__ = [
    "ChaosFaults",
    "ChaosStore",
    "FailingStore",
    "FakeClock",
    "FakeEmbedder",
    "FaultMode",
    "FaultProxy",
    "StoreContract",
    "make_entry",
    "make_key",
    "make_partition",
    "make_vector",
]
