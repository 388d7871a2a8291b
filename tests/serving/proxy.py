"""A TCP port in front of another, whose replies can be delayed."""

import socket
import threading
from contextlib import suppress


class Proxy:
    """A TCP port in front of another: what comes back can be delayed."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self._woken, self._target = threading.Event(), ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def slow(self, seconds: float) -> None:
        """Delay every reply from now on; 0: none, and let go what is held."""
        self.delay = seconds
        if seconds:
            self._woken.clear()
        else:
            self._woken.set()

    def close(self) -> None:
        self.slow(0)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(source, sink, back), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                if back and self.delay:
                    self._woken.wait(self.delay)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            if one is source:
                one.close()
