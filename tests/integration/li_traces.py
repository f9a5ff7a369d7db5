"""What LlamaIndex shows of calls to who listens: events and spans of its dispatcher, events of callback managers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import BaseSpan
from llama_index_instrumentation.span_handlers import BaseSpanHandler
from pydantic import PrivateAttr


class Traces:
    """What was shown: `events` by class, `spans` as (what, arguments, how it ended)."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.spans: list[tuple[str, tuple[str, ...], str]] = []
        self.callbacks: list[str] = []

    def clear(self) -> None:
        for shown in (self.events, self.spans, self.callbacks):
            shown.clear()

    def kinds(self) -> tuple[Any, ...]:
        """All of it, with the pieces of streams as one."""
        events = [name for i, name in enumerate(self.events) if i == 0 or name != self.events[i - 1]]
        return events, sorted(self.spans), self.callbacks


class _Events(BaseEventHandler):
    traces: Any

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.traces.events.append(type(event).__name__)


class _Spans(BaseSpanHandler[BaseSpan]):
    _traces: Traces = PrivateAttr()

    def new_span(self, id_: str, bound_args: inspect.BoundArguments, *args: Any, **kwargs: Any) -> BaseSpan:
        return BaseSpan(id_=id_)

    def prepare_to_exit_span(self, id_: str, bound_args: inspect.BoundArguments, *args: Any, **kwargs: Any) -> BaseSpan:
        self._note(id_, bound_args, "exit")
        return BaseSpan(id_=id_)

    def prepare_to_drop_span(self, id_: str, bound_args: inspect.BoundArguments, *args: Any, **kwargs: Any) -> BaseSpan:
        self._note(id_, bound_args, "drop")
        return BaseSpan(id_=id_)

    def _note(self, id_: str, bound_args: inspect.BoundArguments, how: str) -> None:
        self._traces.spans.append((id_.partition("-")[0], tuple(bound_args.arguments), how))


class _Callbacks(BaseCallbackHandler):
    def __init__(self, traces: Traces) -> None:
        super().__init__([], [])
        self._traces = traces

    def on_event_start(
        self, event_type: Any, payload: Any = None, event_id: str = "", parent_id: str = "", **kwargs: Any
    ) -> str:
        self._traces.callbacks.append(f"start {event_type.value} {sorted(payload or {})}")
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
        self._traces.callbacks.append(f"end {event_type.value} {sorted(payload or {})}")

    def start_trace(self, trace_id: str | None = None) -> None:
        self._traces.callbacks.append(f"trace {trace_id}")

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        self._traces.callbacks.append(f"traced {trace_id}")


@contextmanager
def traced(*models: Any) -> Iterator[Traces]:
    """What is shown inside the block: of all models by the dispatcher, of these by their callback managers."""
    traces = Traces()
    root = get_dispatcher()
    events, spans = root.event_handlers, root.span_handlers
    root.event_handlers = [*events, _Events(traces=traces)]
    listener = _Spans()
    listener._traces = traces
    root.span_handlers = [*spans, listener]
    for model in models:
        model.callback_manager = CallbackManager([_Callbacks(traces)])
    try:
        yield traces
    finally:
        root.event_handlers, root.span_handlers = events, spans
