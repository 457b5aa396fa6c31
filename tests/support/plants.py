"""Plants for tests: one that answers as a test says, in a thread, and the process of examples/plant.py."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from dynamics.messages import Message, decode
from support.processes import ENVIRONMENT

ROOT = Path(__file__).parents[2]
Answer = Callable[[Message], list[bytes] | None]  # the parts to send, if any


class Scripted:
    """A plant that answers each message by a function, and keeps them all."""

    def __init__(self, answer: Answer, address: str):
        self.answer = answer
        self.unasked: list[bytes] | None = None  # to be sent after the next answer
        self.heard: list[dict[str, Any]] = []  # the fields of each message
        self._over = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(address)
        self.address = self._socket.get(zmq.LAST_ENDPOINT).decode()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while not self._over.is_set():
            if self._socket.poll(10):
                who, *parts = self._socket.recv_multipart()
                message = decode(parts)
                self.heard.append(dict(message.fields))
                answer = self.answer(message)
                for words in (answer, self.unasked):
                    if words is not None:
                        self._socket.send_multipart([who, *words])
                self.unasked = None
        self._context.destroy(linger=0)

    def close(self):
        """Leave, as a plant does whose process dies."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def stopped(self) -> str:
        """The reason for which it was told to stop; waits for it."""
        for _ in range(500):
            if self.heard and self.heard[-1]["kind"] == "stop":
                return self.heard[-1]["reason"]
            time.sleep(0.01)
        raise AssertionError(f"it was not told to stop: {self.heard}")


@contextmanager
def scripted(answer: Answer, address: str = "tcp://127.0.0.1:*") -> Iterator[Scripted]:
    """Such a plant, for the time of a block."""
    plant = Scripted(answer, address)
    try:
        yield plant
    finally:
        plant.close()


def free_port() -> int:
    """One of this machine that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Process:
    """examples/plant.py with the arm that reaches, in a process of its own."""

    def __init__(self, port: int, *options: str):
        model = ROOT / "gps/tasks/mujoco/reacher.xml"
        command = [sys.executable, ROOT / "examples/plant.py", model, "--address", f"tcp://127.0.0.1:{port}", *options]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill it, and wait for its end."""
        self.process.kill()
        self.process.wait(30)

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def said(self) -> str:
        """What it has printed, after its end."""
        return self.process.communicate(timeout=30)[0]
