"""Every route of the web listener, by router; a new one needs its line here."""

from __future__ import annotations

from fastapi import APIRouter

from aii.servers.web import live, pages, rest, settings, status, telephony

ROUTERS: tuple[APIRouter, ...] = (
    pages.router,
    status.router,
    settings.router,
    rest.router,
    telephony.router,
    live.router,  # the last: it answers WebSockets of any other path
)
