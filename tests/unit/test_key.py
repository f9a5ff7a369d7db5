"""Rules of the key. The golden vectors change only together with `SCHEMA`."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations

from aicache._key import SCHEMA, identify, model_hash, namespace_hash, tenant_hash
from aicache._model import ExactOnly, Prompt, Query, Turn
from aicache._prompt import split

PROMPT = Prompt("chat", (Turn("system", "Be kind."), Turn("human", "Grüße?", b"x")), b"model")
QUERY = split(PROMPT, question=None)

PARTITION = "c614e6e7a74443f1fbb5ebec849f89d2"
DIGEST = "1a5ebf10e75fb8e48fa02bed5e079a8e514e4ec7d133831c878621f0d8ad2856"
FRAME = b'[["system","Be kind.",0],["human",["",""],1]]x'


def test_golden_vectors() -> None:
    key = identify(QUERY, namespace="default", tenant="acme")
    assert SCHEMA == "aicache/1"
    assert QUERY.frame == FRAME
    assert key.partition.id.hex() == PARTITION
    assert key.digest.hex() == DIGEST
    assert namespace_hash("default").hex() == "bc84639ad527cd37580ad15dd90eaf6f"
    assert tenant_hash(None).hex() == "e94b92ae70a1bdcfb2d343a1cef869a9"
    assert tenant_hash("acme").hex() == "074a97f3a7aae71c2425f6a75cf94ccd"
    assert model_hash(b"model").hex() == "13cff85bf474549316ad2b3d4909811b"


def test_another_run_of_python_gives_the_same_key() -> None:
    code = (
        "from aicache._model import *; from aicache._prompt import split; from aicache._key import identify;"
        "p = Prompt('chat', (Turn('system', 'Be kind.'), Turn('human', 'Gr\\u00fc\\u00dfe?', b'x')), b'model');"
        "print(identify(split(p, question=None), namespace='default', tenant='acme').digest.hex())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == DIGEST


def test_every_field_counts() -> None:
    variants = [
        QUERY,
        replace(QUERY, kind="text"),
        replace(QUERY, frame=QUERY.frame + b" "),
        replace(QUERY, model=b"other"),
        Query("chatx", QUERY.text, QUERY.frame[1:], QUERY.model),
    ]
    ids = [identify(query, namespace="n", tenant=None).partition.id for query in variants]
    ids += [identify(QUERY, namespace="m", tenant=None).partition.id]
    ids += [identify(QUERY, namespace="n", tenant=tenant).partition.id for tenant in ("", "a", "None")]
    assert all(one != other for one, other in combinations(ids, 2))


def test_the_query_text_counts_for_the_digest_only() -> None:
    one = identify(QUERY, namespace="n", tenant=None)
    other = identify(replace(QUERY, text="Why?"), namespace="n", tenant=None)
    assert one.partition == other.partition
    assert one.digest != other.digest


def test_why_a_query_is_matched_exactly_does_not_count() -> None:
    # Semantic matching may be switched off and on again; exact matches stay.
    off = replace(QUERY, exact_only=ExactOnly.SWITCHED_OFF)
    assert identify(off, namespace="n", tenant=None) == identify(QUERY, namespace="n", tenant=None)


def test_no_tenant_is_not_the_empty_tenant() -> None:
    assert tenant_hash(None) != tenant_hash("")


def test_the_hashes_for_selections_are_those_of_the_partition() -> None:
    partition = identify(QUERY, namespace="n", tenant="t").partition
    assert (partition.namespace, partition.tenant, partition.model) == (
        namespace_hash("n"),
        tenant_hash("t"),
        model_hash(b"model"),
    )


def test_the_same_text_has_different_hashes_as_namespace_tenant_and_model() -> None:
    assert len({namespace_hash("a"), tenant_hash("a"), model_hash(b"a")}) == 3


def test_sizes() -> None:
    key = identify(QUERY, namespace="n", tenant=None)
    assert [len(part) for part in (key.partition.id, key.partition.namespace, key.partition.tenant, key.digest)] == [
        16,
        16,
        16,
        32,
    ]


def test_lone_surrogates_have_keys_of_their_own() -> None:
    keys = {
        identify(replace(QUERY, text=text), namespace="\ud800", tenant=None).digest for text in ("\ud800", "\ud801")
    }
    assert len(keys) == 2
