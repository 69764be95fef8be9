"""The engine's HTTP server on a Unix socket of ours: part of what starts the engine, see `bootstrap.py`."""

import hashlib
import hmac
import inspect
import os
import socket


def serve_on_socket(path, proof_key):
    """Has the engine serve on the Unix socket `path`, in a folder of this user alone, and on no port.

    A port can be taken by anybody on this machine before the engine listens there, and after it has died. `GET /cclocal/proof?QUERY` is answered
    with the HMAC-SHA256 of the query by `proof_key`, without which cclocal sends the engine nothing. An engine that cannot be made to do so ends.
    """
    try:
        from uvicorn import Server
    except ImportError as error:
        refuse(error)
    serve = getattr(Server, "serve", None)
    if not inspect.iscoroutinefunction(serve) or "sockets" not in inspect.signature(serve).parameters:
        refuse("uvicorn.Server.serve is another function")

    async def on_our_socket(self, sockets=None):
        try:
            if not self.config.loaded:
                self.config.load()
            self.config.loaded_app = proving(self.config.loaded_app, proof_key)
            listener = bound(path)
        except (AttributeError, OSError) as error:
            refuse(error)
        return await serve(self, sockets=[listener])

    Server.serve = on_our_socket
    applied("listen")


def refuse(reason):
    """Never on a port instead."""
    not_applied("listen", reason)
    # Read by `exit_reason.rs`.
    raise SystemExit("[cclocal] the engine does not serve on cclocal's socket")


def bound(path):
    """Not listening yet: the server does when it is ready. A path that exists is somebody's, as cclocal removes what an earlier engine left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    return listener


def proving(app, key):
    """The same application, which also proves that it has the key."""

    async def answering(scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/cclocal/proof":
            return await app(scope, receive, send)
        proof = hmac.new(key.encode(), scope["query_string"], hashlib.sha256).hexdigest().encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(proof)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": proof})

    return answering


