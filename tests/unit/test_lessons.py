"""Rules of the pairing of lookups and their fresh answers, and of what a fresh answer tells."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aicache._learned import Equal, Lesson, Reading
from aicache._lessons import FEW, WAITING_BYTES, WAITING_LESSONS, WAITING_SECONDS, Finding, Waiting, cluster_of, compare
from aicache._model import Answer, Candidate, Entry
from aicache.testing import make_entry, make_key


def lesson(body: bytes = b"") -> Lesson:
    entry = make_entry("near")
    return Lesson("space", (Candidate(replace(entry, answer=Answer(body, b"d" * 16)), 0.9),))


def test_an_update_takes_the_lesson_of_its_own_prompt_only() -> None:
    waiting = Waiting(lambda dropped: None)
    mine, other = lesson(), lesson()
    waiting.put(make_key("mine"), mine, 0.0)
    waiting.put(make_key("other"), other, 0.0)
    assert waiting.take(make_key("mine")) is mine
    assert waiting.take(make_key("mine")) is None
    assert waiting.take(make_key("other")) is other


def test_of_several_lookups_of_one_prompt_each_update_takes_the_one_that_waited_longest() -> None:
    waiting = Waiting(lambda dropped: None)
    first, second = lesson(), lesson()
    waiting.put(make_key("q"), first, 0.0)
    waiting.put(make_key("q"), second, 1.0)
    assert [waiting.take(make_key("q")), waiting.take(make_key("q"))] == [first, second]


def test_a_lesson_whose_answer_does_not_come_is_dropped_after_a_while() -> None:
    dropped: list[Lesson] = []
    waiting = Waiting(dropped.append)
    old = lesson()
    waiting.put(make_key("old"), old, 0.0)
    waiting.put(make_key("new"), lesson(), WAITING_SECONDS + 1)
    assert dropped == [old]
    assert waiting.take(make_key("old")) is None


def test_lessons_that_wait_are_bounded_in_number_and_the_oldest_go_first() -> None:
    dropped: list[Lesson] = []
    waiting = Waiting(dropped.append)
    lessons = [lesson() for _ in range(WAITING_LESSONS + 3)]
    for number, one in enumerate(lessons):
        waiting.put(make_key(str(number)), one, 0.0)
    assert dropped == lessons[:3]


def test_lessons_that_wait_are_bounded_by_the_answers_they_keep_alive() -> None:
    dropped: list[Lesson] = []
    waiting = Waiting(dropped.append)
    large, small = lesson(bytes(WAITING_BYTES)), lesson()
    waiting.put(make_key("large"), large, 0.0)
    waiting.put(make_key("small"), small, 0.0)
    assert dropped == [large]
    assert waiting.take(make_key("small")) is small


def test_an_answer_that_is_not_kept_drops_its_lesson() -> None:
    dropped: list[Lesson] = []
    waiting = Waiting(dropped.append)
    one = lesson()
    waiting.put(make_key("q"), one, 0.0)
    waiting.drop(make_key("q"))
    waiting.drop(make_key("never asked"))
    assert dropped == [one]


class WaitingMachine(RuleBasedStateMachine):
    """Against a list of pairs: every lesson is taken or dropped once, in order, and no other one ever comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[Lesson] = []
        self.waiting = Waiting(self.dropped.append)
        self.model: list[tuple[str, float, Lesson]] = []
        self.now = 0.0

    names = st.sampled_from("abcd")

    @rule(name=names, seconds=st.sampled_from([0.0, 1.0, WAITING_SECONDS / 2]))
    def look_up(self, name: str, seconds: float) -> None:
        self.now += seconds
        one = lesson()
        self.waiting.put(make_key(name), one, self.now)
        self.model.append((name, self.now, one))

    @rule(name=names)
    def update(self, name: str) -> None:
        taken = self.waiting.take(make_key(name))
        mine = [entry for entry in self.model if entry[0] == name and entry[2] not in self.dropped]
        assert taken is (mine[0][2] if mine else None)
        if mine:
            self.model.remove(mine[0])

    @rule(name=names)
    def fail(self, name: str) -> None:
        mine = [entry for entry in self.model if entry[0] == name and entry[2] not in self.dropped]
        before = len(self.dropped)
        self.waiting.drop(make_key(name))
        assert self.dropped[before:] == [entry[2] for entry in mine[:1]]
        if mine:
            self.model.remove(mine[0])

    @invariant()
    def only_what_is_old_was_dropped(self) -> None:
        for _, when, one in self.model:
            if one in self.dropped:
                assert when < self.now - WAITING_SECONDS


WaitingMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestWaiting = WaitingMachine.TestCase


# --------------------------------------------------------------------------------------------- comparing


def read(answer: Answer) -> Reading:
    return Reading(answer.digest, answer.body.decode())


def near(*answers: str, clusters: tuple[bytes | None, ...] = ()) -> list[Candidate]:
    return [
        Candidate(entry(text, clusters[place] if clusters else None, place), 0.9 - place / 100)
        for place, text in enumerate(answers)
    ]


def entry(text: str, cluster: bytes | None, place: int) -> Entry:
    return replace(make_entry(f"{text}{place}"), answer=fresh(text), cluster=cluster)


def fresh(text: str) -> Answer:
    return Answer(text.encode(), text.encode().ljust(16)[:16])


def test_an_answer_that_says_the_same_as_the_nearest_one_joins_its_cluster() -> None:
    candidates = near("a", "b", clusters=(b"A" * 16, b"B" * 16))
    assert compare(fresh("a"), candidates, Equal(), read) == Finding(True, b"A" * 16)


def test_the_nearest_entry_joins_with_it_if_it_stood_alone() -> None:
    candidates = near("a", "b")
    finding = compare(fresh("a"), candidates, Equal(), read)
    assert finding == Finding(True, cluster_of(candidates[0].entry), candidates[0].entry)


def test_an_answer_that_differs_from_the_nearest_joins_the_first_other_cluster_that_says_the_same() -> None:
    candidates = near("a", "a", "b", "b", clusters=(b"A" * 16, b"A" * 16, b"B" * 16, b"C" * 16))
    assert compare(fresh("b"), candidates, Equal(), read) == Finding(False, b"B" * 16)


def test_an_answer_that_nothing_near_gives_stands_alone() -> None:
    assert compare(fresh("c"), near("a", "b"), Equal(), read) == Finding(False)


class Dear:
    """Says no to everything, and counts."""

    immediate = False
    dear = True

    def __init__(self) -> None:
        self.asked = 0

    def same(self, a: Reading, b: Reading) -> bool | None:
        self.asked += 1
        return False


def test_a_dear_comparator_is_asked_about_the_nearest_entry_only() -> None:
    dear = Dear()
    assert compare(fresh("x"), near("a", "b", "c"), dear, read) == Finding(False)
    assert dear.asked == 1


class Raising:
    immediate = True

    def same(self, a: Reading, b: Reading) -> bool | None:
        raise RuntimeError("a comparator of somebody's own")


def test_a_comparator_that_raises_cannot_tell() -> None:
    assert compare(fresh("x"), near("a"), Raising(), read).ok is None


def test_a_stored_answer_that_cannot_be_read_cannot_be_compared() -> None:
    def unreadable(answer: Answer) -> Reading:
        raise ValueError("damaged")

    assert compare(fresh("x"), near("a"), Equal(), unreadable).ok is None


@pytest.mark.parametrize("other", [Answer(b"1", b"x" * 16), Answer(b"1", b"y" * 16)])
def test_entries_without_a_cluster_stand_in_one_of_their_own(other: Answer) -> None:
    one, two = make_entry("one"), replace(make_entry("two"), answer=other)
    assert len(cluster_of(one)) == 16
    assert cluster_of(one) != cluster_of(two)


class Slow(Dear):
    """As dear as its computing."""

    dear = False


def test_a_comparator_that_takes_its_time_is_asked_about_the_nearest_few_only() -> None:
    slow = Slow()
    answers = [str(number) for number in range(10)]
    assert compare(fresh("x"), near(*answers), slow, read) == Finding(False)
    assert slow.asked == 1 + FEW


def test_an_equal_text_farther_away_is_found_without_asking() -> None:
    candidates = near(*(str(number) for number in range(10)))
    assert compare(fresh("9"), candidates, Slow(), read).joined is candidates[9].entry
