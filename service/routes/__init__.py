"""The HTTP API, one module for each thing it is about."""

from service.routes import bundle, events, items, operation, recall

ROUTERS = (recall.router, items.router, events.router, bundle.router, operation.router)
