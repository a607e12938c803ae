"""Who acts, in which request, with which tags, for everything that is published while a request or task is at work.

One module a framework: `asgi`, `wsgi`, `django`, `fastapi`, `celery`. Each sets the context before the application's code runs
and takes it away after, whatever happens; with `events=True` those of HTTP write `http.…` events too.
"""
