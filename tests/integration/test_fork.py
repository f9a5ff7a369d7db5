"""What lives in memory, after a fork in the middle of other threads' work.

Each test forks in a fresh interpreter. A child that hangs is ended by its own alarm, so that no test waits for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_BEGIN = """
import os, signal, sys, threading
from aicache._model import Entry, Search
from aicache.stores.l1 import L1Cache
from aicache.stores.memory import MemoryStore
from aicache.testing import make_entry, make_key, make_partition, make_vector

SECONDS = 20
sys.setswitchinterval(1e-5)  # so that a fork finds threads in the middle of something
EAST = make_vector(1, 0)

def in_child(act):
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            act()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\\n".encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, "the child hung" if code == -signal.SIGALRM else f"the child failed: {code}"

class Slow(Entry):
    # An entry that keeps whoever weighs it waiting, inside the lock, when it is armed.
    armed = inside = go = None

    @property
    def weight(self):
        if Slow.armed:
            Slow.inside.set()
            assert Slow.go.wait(SECONDS)
        return Entry.weight.fget(self)

def slow(query, vector=None):
    model = make_entry(query, vector=vector)
    return Slow(**{name: getattr(model, name) for name in Entry.__dataclass_fields__})

def held(act):
    # Begins `act` in a thread and returns when it is inside the lock.
    Slow.armed, Slow.inside, Slow.go = True, threading.Event(), threading.Event()
    thread = threading.Thread(target=act)
    thread.start()
    assert Slow.inside.wait(SECONDS)
    return thread

def release(thread):
    Slow.armed = False
    Slow.go.set()
    thread.join(SECONDS)
    assert not thread.is_alive()
"""


def _run(source: str) -> None:
    # Python 3.12 warns of a fork beside threads, which is what these tests are about.
    command = [sys.executable, "-W", "ignore", "-c", _BEGIN + source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_forked_while_a_thread_changes_l1_begins_with_an_empty_one() -> None:
    _run("""
l1 = L1Cache()
l1.put(slow("old"))
l1.put(make_entry("other"))
thread = held(lambda: l1.discard(make_key("old")))

def act():
    assert l1.get(make_key("other")) is None
    assert l1.size().entries == l1.size().bytes == 0
    Slow.armed = False
    for number in range(200):
        l1.put(make_entry(f"new {number}"))
        assert l1.get(make_key(f"new {number}")) is not None
    l1.touch(make_key("new 1"), 5.0)
    l1.discard(make_key("new 2"))
    assert l1.size().entries == 199

in_child(act)
release(thread)
assert l1.get(make_key("old")) is None
assert l1.get(make_key("other")) is not None
""")


@pytest.mark.parametrize("act", ['store.write(slow("next", EAST))', 'store.remove([make_key("old")])'])
def test_a_child_forked_while_a_thread_changes_a_memory_store_begins_with_an_empty_one(act: str) -> None:
    _run(f"""
store = MemoryStore()
store.write(slow("old", EAST))
for number in range(100):  # enough for an index
    store.write(make_entry(f"q{{number}}", vector=make_vector(1, number)))
thread = held(lambda: {act})

def act():
    Slow.armed = False
    assert store.size().entries == store.size().bytes == 0
    assert store.fetch(make_key("q7")) is None
    assert store.nearest(Search(make_partition(), "fake/2", EAST, 5)) == []
    for number in range(100):
        store.write(make_entry(f"new {{number}}", vector=make_vector(1, number)))
    near = store.nearest(Search(make_partition(), "fake/2", EAST, 2))
    assert [one.entry.query for one in near] == ["new 0", "new 1"]
    assert store.remove([make_key("new 0")]) == 1
    assert store.sweep(5.0, 5) == 0
    store.touch(make_key("new 1"), 5.0)
    assert store.sweep(5.0, 5) == 1
    store.close()

in_child(act)
release(thread)
assert store.fetch(make_key("q7")) is not None
""")


def test_a_child_forked_while_a_thread_learns_keeps_what_was_learned_before() -> None:
    _run("""
class SlowLessons(list):
    # Lessons that keep whoever appends them waiting, inside the lock.
    def __iter__(self):
        Slow.inside.set()
        assert Slow.go.wait(SECONDS)
        return super().__iter__()

store = MemoryStore()
store.append_lessons(b"log", [b"one"])
store.keep_summary(b"log", 1, b"summary")
thread = held(lambda: store.append_lessons(b"log", SlowLessons([b"two"])))

def act():
    assert store.lessons(b"log", 0).items == (b"one",)
    assert store.append_lessons(b"log", [b"three"]) == 2
    assert store.summary(b"log") == (1, b"summary")
    store.forget_lessons(b"log")
    assert store.append_lessons(b"log", [b"four"]) == 1

in_child(act)
release(thread)
assert store.lessons(b"log", 0).items == (b"one", b"two")
""")


def test_a_child_forked_while_nobody_changes_anything_keeps_what_there_is() -> None:
    """So that a server may fill its cache before it forks its workers."""
    _run("""
store, l1 = MemoryStore(), L1Cache()
for number in range(100):
    store.write(make_entry(f"q{number}", vector=make_vector(1, number)))
    l1.put(make_entry(f"q{number}"))

def act():
    assert store.nearest(Search(make_partition(), "fake/2", EAST, 1))[0].entry.query == "q0"
    assert l1.get(make_key("q7")) is not None
    store.write(make_entry("new", vector=EAST))
    l1.put(make_entry("new"))
    assert store.size().entries == l1.size().entries == 101
    in_child(lambda: l1.get(make_key("new")).key)

in_child(act)
assert store.fetch(make_key("new")) is None
""")


def test_no_child_of_a_busy_program_hangs() -> None:
    _run("""
store, l1 = MemoryStore(max_entries=6_000), L1Cache(max_entries=500)
stop = threading.Event()
for number in range(4_500):  # so many that the index has a graph
    store.write(make_entry(f"start {number}", vector=make_vector(1, number, 7, number % 13)))

def work(seat):
    number = 0
    while not stop.is_set():
        number += 1
        entry = make_entry(f"{seat}/{number}", vector=make_vector(seat, number, 1, number % 7))
        store.write(entry)
        l1.put(entry)
        store.nearest(Search(entry.key.partition, entry.space, entry.vector, 3))
        l1.get(entry.key)

threads = [threading.Thread(target=work, args=(seat,)) for seat in range(3)]
for thread in threads:
    thread.start()

def act():
    for number in range(80):
        entry = make_entry(f"child {number}", vector=make_vector(9, number, 9, 9))
        store.write(entry)
        l1.put(entry)
        assert l1.get(entry.key) is not None
        assert store.fetch(entry.key) is not None
        assert store.nearest(Search(entry.key.partition, entry.space, entry.vector, 1))

try:
    for _ in range(15):
        in_child(act)
finally:
    stop.set()
for thread in threads:
    thread.join()
""")


def test_a_store_that_was_in_use_before_a_fork_does_not_live_for_ever() -> None:
    _run("""
import gc, weakref
for make in (MemoryStore, L1Cache):
    gone = weakref.ref(make())
    gc.collect()
    assert gone() is None
in_child(lambda: None)
""")


def test_no_child_of_a_program_that_is_busy_with_langchains_cache_hangs() -> None:
    _run("""
from langchain_core.outputs import Generation
from aicache.testing import FakeEmbedder, make_vector
from langchain_aicache import AICache

cache = AICache("memory://", embeddings=FakeEmbedder())
stop = threading.Event()

def ask(question):
    cache.lookup(question, "model")
    cache.update(question, "model", [Generation(text="answer")])
    return cache.lookup(question, "model")

def work(seat):
    number = 0
    while not stop.is_set():
        number += 1
        ask(f"What does article {seat}/{number} cost?")

ask("How much is it?")  # A module that a thread has half imported stays so in the child.
threads = [threading.Thread(target=work, args=(seat,)) for seat in range(3)]
for thread in threads:
    thread.start()

def act():
    cache.reset_stats()
    for number in range(20):
        assert ask(f"How much is child {number}?")[0].text == "answer"
    assert not cache.stats().failed_steps, cache.stats()

try:
    for _ in range(15):
        in_child(act)
finally:
    stop.set()
for thread in threads:
    thread.join()
""")
