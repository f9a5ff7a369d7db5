"""Whose entries a call is about."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from aicache._errors import ConfigurationError

__all__ = ["NoTenantError", "Tenant", "check_tenant", "current_tenant"]

Tenant: TypeAlias = str | Callable[[], str | None] | None
"""Whose entries these are. A callable is asked at every call; one that returns None or raises means: no cache."""


class NoTenantError(Exception):
    """The tenant is not known, so nothing may be shared."""


def check_tenant(tenant: object) -> None:
    """Refuse what is no `Tenant`.

    Raises:
        ConfigurationError: it is not.
    """
    if not (tenant is None or isinstance(tenant, str) or callable(tenant)):
        raise ConfigurationError("tenant", f"give a text or a callable; got {type(tenant).__name__}")
    if inspect.iscoroutinefunction(tenant):
        raise ConfigurationError("tenant", "give a callable that answers at once, not a coroutine function")


def current_tenant(tenant: Tenant) -> str | None:
    """The tenant of this moment.

    Raises:
        NoTenantError: the callable raised, or did not return a text.
    """
    if tenant is None or isinstance(tenant, str):
        return tenant
    try:
        answer = tenant()
    except Exception as error:
        raise NoTenantError(f"the tenant callable raised {type(error).__name__}") from error
    if not isinstance(answer, str):
        raise NoTenantError(f"the tenant callable returned {type(answer).__name__}, not a text")
    return answer
