"""A server that is no tracking store."""

import socketserver
from threading import Thread

import pytest

from mint.errors import InputError
from mint.tracking.preflight import reach_store


class _NoWebServer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1024)
        self.request.sendall(b"SSH-2.0-OpenSSH\r\n")


def test_server_that_is_no_web_server_is_refused() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _NoWebServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        with pytest.raises(InputError, match=rf"tracking_uri http://127.0.0.1:{port}: nobody"):
            reach_store(f"http://127.0.0.1:{port}")
        server.shutdown()
