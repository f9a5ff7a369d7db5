"""Rules of reading LangChain's descriptions of models, made by real models, bindings and structured output."""

import enum
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from aicache._model import Unkeyable
from langchain_aicache._llm_string import ModelReader, read_llm_string


class Listener(BaseCache):
    """Hears what LangChain hands to a cache."""

    def __init__(self) -> None:
        self.llm_string = ""

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        self.llm_string = llm_string
        return None

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        pass

    def clear(self, **kwargs: Any) -> None:
        pass


class ToolModel(BaseChatModel):
    """A serialisable chat model with the fields of the usual integrations."""

    model_name: str = "m1"
    temperature: float | None = None
    base_url: str | None = None
    request_timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = False
    stream_usage: bool | None = None
    default_headers: dict[str, str] | None = None
    extra_body: dict[str, Any] | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    use_previous_response_id: bool = False
    api_key: SecretStr | None = None
    http_client: Any = None
    settings: Any = None

    @property
    def _llm_type(self) -> str:
        return "tool-model"

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "TOOL_API_KEY"}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        calls = [{"name": tool["function"]["name"], "args": {"n": 1}, "id": "1"} for tool in kwargs.get("tools", [])]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("hi", tool_calls=calls))])

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        kwargs.pop("tool_choice", None)
        return self.bind(tools=[convert_to_openai_tool(item) for item in tools], **kwargs)


class PlainModel(ToolModel):
    """The same, described by its parameters."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "name": self.model_name,
            "temperature": self.temperature,
            "request_timeout": self.request_timeout,
            "default_headers": self.default_headers,
            "http_client": self.http_client,
            "settings": self.settings,
        }


class OwnModel(ToolModel):
    """A model of the user's own, described by the parameters it says identify it."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model_name, **(self.settings or {})}


class NamedModel(ToolModel):
    """A serialisable model of the user's own, with texts under names that LangChain uses for other things."""

    profile: Any = None
    proxy: str | None = None


RECURSIVE: list[object] = []
RECURSIVE.append(RECURSIVE)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@tool
def add(n: int) -> int:
    """Add one."""
    return n + 1


@tool
def sub(n: int) -> int:
    """Subtract one."""
    return n - 1


def described(model: type[ToolModel] = ToolModel, call: dict[str, Any] | None = None, **fields: Any) -> str:
    """The description a cache gets from a real `invoke`."""
    listener = Listener()
    model(cache=listener, **fields).bind(**call or {}).invoke("hi")
    return listener.llm_string


def key_of(llm_string: str) -> bytes | Unkeyable:
    """What counts of a description."""
    found = read_llm_string(llm_string)
    return found if isinstance(found, Unkeyable) else found.model


def read(model: type[ToolModel] = ToolModel, call: dict[str, Any] | None = None, **fields: Any) -> bytes | Unkeyable:
    return key_of(described(model, call, **fields))


BOTH = pytest.mark.parametrize("model", [ToolModel, PlainModel])


# -------------------------------------------------------------------------------------------- what counts


@BOTH
def test_model_and_parameters_count(model: type[ToolModel]) -> None:
    results = [
        read(model),
        read(model, model_name="m2"),
        read(model, temperature=0.0),
        read(model, temperature=0.5),
        read(model, {"temperature": 0.5}),
        read(model, {"seed": 1}),
        read(model, {"stop": ["a"]}),
        read(model, {"stop": ["b"]}),
        read(model, {"top_p": 0.5, "n": 2}),
        read(model, {"tool_choice": "any"}),
    ]
    assert all(isinstance(result, bytes) for result in results)
    if model is PlainModel:  # described by merged parameters: where one was set makes no difference
        assert results.pop(4) == results[3]
    assert len(set(results)) == len(results)


def test_address_and_body_count() -> None:
    results = [
        read(),
        read(base_url="http://a"),
        read(base_url="http://b"),
        read(extra_body={"a": 1}),
        read(extra_body={"a": 2}),
        read(model_kwargs={"a": 1}),
    ]
    assert len(set(results)) == len(results)


def test_serialisable_and_other_models_never_share_a_description() -> None:
    assert read(ToolModel) != read(PlainModel)


def test_tools_count() -> None:
    listener = Listener()
    model = ToolModel(cache=listener)
    results = []
    for tools in ([], [add], [sub], [add, sub]):
        model.bind_tools(tools).invoke("hi")
        results.append(key_of(listener.llm_string))
    assert len(set(results)) == 4


def test_a_header_that_chooses_a_feature_counts() -> None:
    assert read(default_headers={"anthropic-beta": "a"}) != read(default_headers={"anthropic-beta": "b"})
    assert read(default_headers={"X-Tenant": "a", "X-Trace": "1"}) == read(default_headers={"x-tenant": "a"})


@BOTH
@pytest.mark.parametrize(
    "header",
    [
        "anthropic-beta", "anthropic-version", "anthropic-workspace", "OpenAI-Organization", "OpenAI-Project",
        "x-portkey-provider", "x-portkey-config", "x-portkey-virtual-key", "x-litellm-tags", "x-goog-user-project",
        "X-Customer-Id", "X-User", "X-Org-Id", "X-Auth-User", "X-Spanish", "X-Dated", "Accept-Language", "Host",
        "HTTP-Referer", "X-Anything", "x-model",
    ],
)  # fmt: skip
def test_a_header_counts_unless_it_is_known_not_to_change_the_answer(model: type[ToolModel], header: str) -> None:
    results = [read(model), *(read(model, default_headers={header: value}) for value in ("a", "b"))]
    assert all(isinstance(result, bytes) for result in results)
    assert len(set(results)) == 3
    results = [read(model, {"extra_headers": {header: value}}) for value in ("a", "b")]
    assert results[0] != results[1]


@BOTH
@pytest.mark.parametrize(
    "header",
    [
        "Authorization", "Proxy-Authorization", "x-api-key", "api-key", "X_API_KEY", "x-goog-api-key",
        "x-portkey-api-key", "Ocp-Apim-Subscription-Key", "x-amz-security-token", "Cookie", "User-Agent", "Accept",
        "Accept-Encoding", "Content-Type", "Content-Length", "Connection", "Date", "x-amz-date", "X-Request-ID",
        "x-client-request-id", "X-Correlation-Id", "traceparent", "tracestate", "baggage", "X-Trace",
        "X-Amzn-Trace-Id", "x-portkey-trace-id", "x-portkey-span-id", "x-b3-traceid", "X-B3-Sampled", "b3",
        "sentry-trace", "x-datadog-parent-id", "X-Cloud-Trace-Context", "uber-trace-id", "Idempotency-Key",
        "x-stainless-retry-count",
    ],
)  # fmt: skip
def test_a_header_of_the_transport_does_not_count(model: type[ToolModel], header: str) -> None:
    assert read(model, default_headers={header: "a"}) == read(model)
    assert read(model, {"extra_headers": {header: "a", "X-User": "u"}}) == read(
        model, {"extra_headers": {"X-User": "u"}}
    )


def test_the_order_and_the_case_of_header_names_do_not_count() -> None:
    one, two = {"X-User": "a", "X-Org": "b"}, {"x-org": "b", "x-user": "a"}
    assert read(default_headers=one) == read(default_headers=two)
    assert read(default_headers=one) != read(default_headers={"X-User": "b", "X-Org": "a"})


def test_a_header_whose_value_is_not_shown_has_no_key() -> None:
    assert isinstance(read(call={"extra_headers": {"X-User": object()}}), Unkeyable)
    assert read(call={"extra_headers": {"Authorization": object()}}) == read()


@pytest.mark.parametrize("name", ["profile", "verbose", "cache", "proxy", "proxies", "run_name", "run_id"])
@pytest.mark.parametrize("values", [("pirate", "lawyer"), ({"a": 1}, {"a": 2}), (True, False)], ids=str)
def test_a_parameter_of_a_model_of_your_own_counts_whatever_langchain_calls_so(name: str, values: Any) -> None:
    results = [read(OwnModel, settings={name: value}) for value in values]
    assert all(isinstance(result, bytes) for result in results)
    assert results[0] != results[1]


@pytest.mark.parametrize("name", ["profile", "verbose", "cache", "callbacks", "callback_manager"])
def test_an_object_under_a_name_of_langchains_does_not_count(name: str) -> None:
    assert read(OwnModel, settings={name: object()}) == read(OwnModel)
    assert read(OwnModel, settings={name: None}) == read(OwnModel)


def test_a_list_of_callbacks_does_not_count() -> None:
    assert read(OwnModel, settings={"callbacks": [object()]}) == read(OwnModel)


def test_langchains_own_fields_of_a_serialisable_model_count_only_as_texts() -> None:
    assert read(NamedModel, profile={"max_input_tokens": 9}, verbose=True) == read(NamedModel)
    assert len({read(NamedModel), read(NamedModel, profile="pirate"), read(NamedModel, profile="lawyer")}) == 3
    assert read(NamedModel, proxy="http://a") != read(NamedModel, proxy="http://b")


@BOTH
@pytest.mark.parametrize("name", ["profile", "verbose", "cache", "proxy"])
def test_what_is_passed_through_to_the_provider_counts_whatever_its_name(model: type[ToolModel], name: str) -> None:
    assert read(model, {name: "pirate"}) != read(model, {name: "lawyer"})
    assert read(model_kwargs={name: True}) != read(model_kwargs={name: False})
    assert read(extra_body={name: True}) != read(extra_body={name: False})


# ---------------------------------------------------------------------------------------- what does not


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"request_timeout": 3.0},
        {"default_headers": {"Authorization": "Bearer secret"}},
        {"http_client": object()},
    ],
)
def test_transport_does_not_count(model: type[ToolModel], fields: dict[str, Any]) -> None:
    assert read(model, **fields) == read(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"streaming": True},
        {"stream_usage": True},
        {"max_retries": 7},
        {"api_key": SecretStr("sk-1")},
        {"name": "my model"},
        {"tags": ["a"], "metadata": {"a": 1}},
        {"verbose": True},
        {"model_kwargs": {"timeout": 3, "headers": {"X-Trace": "b"}}},
    ],
)
def test_fields_for_the_transport_do_not_count(fields: dict[str, Any]) -> None:
    # `model_kwargs` itself counts, were it only empty of anything that does.
    base: dict[str, Any] = {"model_kwargs": {"timeout": 4}} if "model_kwargs" in fields else {}
    assert read(**fields) == read(**base)


@pytest.mark.parametrize(
    "call",
    [
        {"timeout": 3},
        {"stream_usage": True},
        {"extra_headers": {"X-Trace": "1"}},
        {"headers": {"X-Trace": "1"}},
        {"api_key": "sk-1"},
        {"stop": None},
        {"prompt_cache_key": "a"},
        {"callbacks_of_mine": None, "rate_limiter": object()},
    ],
)
def test_call_parameters_for_the_transport_do_not_count(call: dict[str, Any]) -> None:
    base = {"callbacks_of_mine": None} if "callbacks_of_mine" in call else {}
    assert read(call=call) == read(call=base)


def test_in_a_description_by_parameters_the_name_counts() -> None:
    # It may be the model's own.
    assert read(PlainModel, model_name="a") != read(PlainModel, model_name="b")


def test_no_secret_is_in_the_result_or_the_reason() -> None:
    secret = "sk-very-secret"
    results = [
        read(default_headers={"x-model": secret}, extra_body={"key": secret}),
        read(PlainModel, settings=secret),
        read(call={"previous_response_id": secret}),
        read(settings={"a": object(), secret: secret}),
    ]
    for result in results:
        assert secret not in (result.why if isinstance(result, Unkeyable) else result.decode("latin-1"))


# ------------------------------------------------------------------------------------------------- schemas


@pytest.fixture
def app() -> Iterator[ModuleType]:
    """A module of an application, whose classes a test defines anew."""
    module = ModuleType("app_of_the_test")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def define(module: ModuleType, source: str) -> Any:
    vars(module).update(BaseModel=BaseModel, TypedDict=TypedDict, dataclass=dataclass, Field=Field)
    exec(source, vars(module))
    return vars(module)["Out"]


SCHEMAS = {
    "pydantic": "class Out(BaseModel):\n    a: {}\n",
    "typed dict": "class Out(TypedDict):\n    a: {}\n",
    "dataclass": "@dataclass\nclass Out:\n    a: {}\n",
    "nested": "class In(BaseModel):\n    b: {}\nclass Out(BaseModel):\n    a: list[In]\n",
}


@BOTH
@pytest.mark.parametrize("source", SCHEMAS.values(), ids=SCHEMAS)
def test_a_changed_schema_under_the_same_name_is_another_model(
    app: ModuleType, model: type[ToolModel], source: str
) -> None:
    strings, results = [], []
    for field in ("int", "str", "int"):
        strings.append(described(model, {"response_format": define(app, source.format(field))}))
        results.append(key_of(strings[-1]))
    assert len(set(strings)) == 1, "the description shows the name of the class only"
    assert all(isinstance(result, bytes) for result in results)
    assert results[0] == results[2] != results[1]


def test_a_class_defined_anew_is_noticed_by_the_reader_that_remembers(app: ModuleType) -> None:
    reader = ModelReader()
    results = []
    for field in ("int", "str", "int"):
        string = described(call={"response_format": define(app, SCHEMAS["pydantic"].format(field))})
        results += [reader(string), reader(string)]
    assert results[0] == results[1] == results[4] == results[5]
    assert results[2] == results[3] != results[0]


def test_the_reader_that_remembers_reads_the_same() -> None:
    reader = ModelReader(size=2)
    strings = [described(temperature=t / 10) for t in range(4)] + [described(settings=object())]
    for string in strings * 2:
        assert reader(string) == read_llm_string(string)


def test_the_order_of_fields_counts(app: ModuleType) -> None:
    # A model fills them in that order: an explanation before the verdict changes the verdict.
    results = []
    for fields in ("a: int\n    b: int", "b: int\n    a: int"):
        out = define(app, f"class Out(BaseModel):\n    {fields}\n")
        results.append(read(call={"response_format": out}))
    assert results[0] != results[1]


def test_structured_output_by_tools_holds_the_schema_itself(app: ModuleType) -> None:
    listener = Listener()
    results = []
    for field in ("n: int", "n: int = 3"):
        out = define(app, f"class Out(BaseModel):\n    {field}\n")
        ToolModel(cache=listener).with_structured_output(out).invoke("hi")
        results.append(key_of(listener.llm_string))
    assert results[0] != results[1]


def test_a_class_that_cannot_be_found_by_its_name_has_no_key(app: ModuleType) -> None:
    class Local(BaseModel):
        a: int

    gone = define(app, SCHEMAS["pydantic"].format("int"))
    del app.Out
    for cls in (Local, gone, Color):
        result = read(call={"response_format": cls})
        assert isinstance(result, Unkeyable)
        assert key_of(described(call={"response_format": cls})) == result


def test_the_repr_of_a_class_inside_a_text_is_text() -> None:
    tools = [{"name": "f", "description": "gives <class 'app.Out'> it's \"x\" or <a at 0x12>"}]
    other = [{"name": "f", "description": "gives <class 'app.In'> it's \"x\" or <a at 0x12>"}]
    one, two = read(call={"functions": tools}), read(call={"functions": other})
    assert isinstance(one, bytes)
    assert isinstance(two, bytes)
    assert one != two


def test_a_text_cannot_pass_for_a_class() -> None:
    results = {read(call={"x": int}), read(call={"x": "<class 'int'>"}), read(call={"x": ("class", "int")})}
    assert len(results) == 3
    assert all(isinstance(result, bytes) for result in results)


# --------------------------------------------------------------------------------------------- unkeyable


@pytest.mark.parametrize(
    "call",
    [
        {"x": object()},
        {"x": [lambda: 1]},
        {"x": {"a": object()}},
        {"response_format": list[Listener]},
        {"response_format": Listener | None},
        {"x": Color},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"extra_body": {"previous_response_id": "resp_1"}},
        {"x": RECURSIVE},
    ],
    ids=str,
)
@BOTH
def test_what_the_description_does_not_show_has_no_key(model: type[ToolModel], call: dict[str, Any]) -> None:
    assert isinstance(read(model, call), Unkeyable)


def test_a_field_that_is_an_object_has_no_key() -> None:
    class Settings:
        pass

    assert isinstance(read(settings=Settings()), Unkeyable)
    assert isinstance(read(PlainModel, settings=Settings()), Unkeyable)
    assert isinstance(read(use_previous_response_id=True), Unkeyable)


def test_absent_conversations_are_keyable() -> None:
    assert isinstance(read(call={"previous_response_id": None}), bytes)


# -------------------------------------------------------------------------------------------- odd strings


def test_values_shown_in_full_have_keys_although_they_are_no_literals() -> None:
    results = [
        read(call={"x": Color.RED}),
        read(call={"x": Color.BLUE}),
        read(call={"x": float("inf")}),
        read(call={"x": SecretStr("a")}),
        read(call={"x": {3, 1}}),
        read(call={"x": {1, 2}}),
    ]
    assert all(isinstance(result, bytes) for result in results)
    assert len(set(results)) == len(results)
    assert read(call={"x": {3, 1}}) == read(call={"x": {1, 3}})


@pytest.mark.parametrize(
    "text", ["", "gpt", "{", "{}", "{}---", '{"a": 1}', "[", "[1]", "[(1,)]", "a[b]", "\ud800", "(" * 5000, "'", "---"]
)
def test_any_text_is_read_without_an_error(text: str) -> None:
    result = key_of(text)
    assert isinstance(result, bytes | Unkeyable)
    assert isinstance(result, Unkeyable) or result != key_of(text + "x")


def test_the_marks_inside_a_field_do_not_confuse_the_reader() -> None:
    assert read(model_name="a---[('stop', None)]") != read(model_name="a")


def test_a_completion_model_is_read() -> None:
    listener = Listener()
    results = []
    for sleep in (None, 0.0):
        FakeListLLM(responses=["a"], cache=listener, sleep=sleep).invoke("hi", stop=["x"])
        results.append(key_of(listener.llm_string))
    assert isinstance(results[0], bytes)


def name_of(**how: Any) -> str | None:
    found = read_llm_string(described(**how))
    assert not isinstance(found, Unkeyable)
    return found.name


def test_the_model_is_known_by_the_name_its_provider_gave_it() -> None:
    assert name_of(model=ToolModel, model_name="gpt-4o-2024-08-06") == "gpt-4o-2024-08-06"
    assert name_of(model=OwnModel, model_name="gpt-4o-2024-08-06") == "gpt-4o-2024-08-06"


@BOTH
def test_the_name_that_a_call_asks_for_comes_before_that_of_the_model(model: type[ToolModel]) -> None:
    assert name_of(model=model, model_name="old", call={"model": "new"}) == "new"


def test_the_name_that_a_call_asks_for_counts_whatever_the_model_calls_its_own() -> None:
    described_by_both = "[('_type', 'x'), ('model', 'asked-for'), ('model_name', 'made-with')]"
    found = read_llm_string(described_by_both)
    assert not isinstance(found, Unkeyable)
    assert found.name == "asked-for"


def test_a_description_that_cannot_be_parsed_names_no_model() -> None:
    found = read_llm_string("[('model', f(x))]")
    assert not isinstance(found, Unkeyable)
    assert found.name is None
