"""A plant in another process: over ZeroMQ, by the messages of docs/plant.md.

Whatever goes wrong on our side, an interrupt from the keyboard included, the plant is told to stop before anything
else happens.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq
from jaxtyping import Float

from dynamics.messages import VERSION, Message, MessageError, decode, encode
from dynamics.plant import LIMIT, Act, Beginning, Episode, PlantError

_LARGEST = 2**28  # bytes of a part of a message
_HEARTBEAT = 1000  # ms between two signs of life, of the process; three without one, and the connection is lost
_FAREWELL = 500  # ms for the last message to leave
_ROUNDING = 1e-6  # by which an applied action may be beyond LIMIT


@dataclass(frozen=True)
class Signature:
    """What a plant and a task have to agree on."""

    nx: int
    nu: int
    dt: float  # seconds per action
    frame_size: int  # numbers that the learner sees at each step


class RemotePlant:
    """See `dynamics.plant.Plant`. It connects for its first episode, and anew where the connection has been lost since.

    Args:
        address: of ZeroMQ, such as tcp://robot:5555.
        timeout: seconds without an answer, beyond what an episode or a step of it takes, after which it is lost.
        task: the sizes to agree on.
    """

    def __init__(self, address: str, timeout: float, task: Signature):
        self.address, self.timeout, self.task = address, timeout, task
        self._line: _Line | None = None
        self._frame_size = 0  # that the plant senses
        self._count = 0  # episodes

    @property
    def frame_size(self) -> int:
        """See `Plant.frame_size`."""
        with self._connected(f"plant {self.address}"):
            return self._frame_size

    def follow(self, beginning: Beginning, K: Float[np.ndarray, "T nu nx"], k: Float[np.ndarray, "T nu"]) -> Episode:
        """See `Plant.follow`: the plant is given the table, and no message is needed while it moves."""
        with self._episode("controller", len(k), beginning, {"K": K, "k": k}) as line:
            return self._ended(line, len(k), len(k) * self.task.dt)

    def obey(self, beginning: Beginning, horizon: int, act: Act) -> Episode:
        """See `Plant.obey`: a message each way at every step."""
        task = self.task
        with self._episode("learner", horizon, beginning) as line:
            for t in range(horizon):
                at = line.receive(self.timeout + task.dt, kind="state", episode=self._count, t=t)
                x, frame = at.array("x", (task.nx,)), at.array("frame", (self._frame_size,))
                u = np.clip(act(t, x, frame), -LIMIT, LIMIT)
                line.send({"kind": "action", "episode": self._count, "t": t}, {"u": u})
            return self._ended(line, horizon, task.dt)

    @contextmanager
    def _episode(
        self, by: str, horizon: int, beginning: Beginning, law: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[_Line]:
        """An episode that has begun."""
        self._count += 1
        with self._connected(f"plant {self.address}, episode {self._count}") as line:
            header = {"kind": "episode", "episode": self._count, "by": by, "horizon": horizon, "limit": LIMIT}
            line.send(header, {"start": beginning.start, "context": beginning.context, **(law or {})})
            yield line

    @contextmanager
    def _connected(self, where: str) -> Iterator[_Line]:
        """The connection; whatever interrupts its use stops the plant, and ends in a PlantError that says where."""
        try:
            if self._line is None or self._line.lost():  # between episodes nothing moves: it may have been restarted
                self._stop("another connection is made")
                self._line = self._greeted()
            yield self._line
        except BaseException as error:
            reason = "interrupted from the keyboard" if isinstance(error, KeyboardInterrupt) else str(error)
            self._stop(reason)
            if isinstance(error, KeyboardInterrupt | PlantError | TimeoutError | MessageError | zmq.ZMQError):
                raise PlantError(f"{where}: {reason}") from error
            raise

    def _greeted(self) -> _Line:
        """A connection to a plant that fits the task."""
        line = self._line = _Line(self.address)
        line.send({"kind": "hello", "version": VERSION})
        try:
            about = line.receive(self.timeout, kind="hello", version=VERSION).fields
        except TimeoutError as error:
            raise PlantError(f"{error}; is a plant running there?") from error
        for name in ("nx", "nu", "dt"):
            has, wanted = about.get(name), getattr(self.task, name)
            if not isinstance(has, int | float) or not 0.999999 * wanted < has < 1.000001 * wanted:
                raise PlantError(f"it has {name} = {has!r}, and the task {name} = {wanted}")
        self._frame_size = about.get("frame_size", 0)
        if self._frame_size not in (0, self.task.frame_size):
            raise PlantError(
                f"it senses frames of frame_size = {self._frame_size!r}; those of the task have "
                f"{self.task.frame_size} numbers, and with 0 they are made of its states"
            )
        return line

    def _ended(self, line: _Line, horizon: int, seconds: float) -> Episode:
        """The whole episode, which the plant reports after at most so many seconds of motion."""
        task = self.task
        told = line.receive(self.timeout + seconds, kind="episode", episode=self._count)
        us = told.array("us", (horizon, task.nu))
        beyond = np.argwhere(np.abs(us) > LIMIT + _ROUNDING)
        if len(beyond):
            worst = tuple(beyond[0])
            raise PlantError(f"it applied us{list(map(int, worst))} = {us[worst]:g}, beyond its limit of {LIMIT:g}")
        return Episode(told.array("xs", (horizon + 1, task.nx)), us, told.array("frames", (horizon, self._frame_size)))

    def _stop(self, reason: str) -> None:
        """Tell the plant to stop, and forget the connection."""
        if self._line is not None:
            self._line.close(reason)
        self._line = None


class _Line:
    """A connection."""

    def __init__(self, address: str):
        context = zmq.Context()
        try:
            self._socket = context.socket(zmq.DEALER)
            self._socket.set(zmq.MAXMSGSIZE, _LARGEST)
            self._socket.set(zmq.HEARTBEAT_IVL, _HEARTBEAT)
            self._socket.set(zmq.HEARTBEAT_TIMEOUT, 3 * _HEARTBEAT)
            self._lost = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._socket.connect(address)
        except zmq.ZMQError as error:
            context.destroy(linger=0)
            raise PlantError(f"{error}: an address is such as tcp://robot:5555") from error
        # it holds the sockets: a context that is collected together with its sockets waits for them for ever
        self._leave = weakref.finalize(self, _leave, context, self._socket, self._lost)

    def send(self, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Send a message; errors as in `encode`."""
        self._socket.send_multipart(encode(fields, arrays), zmq.NOBLOCK)

    def receive(self, seconds: float, **expected: Any) -> Message:
        """The next message, whose header must have the expected values.

        Errors:
            PlantError where it has others, where the plant says that it has stopped, and where the connection is
            lost; MessageError where it can not be read; TimeoutError after so many seconds.
        """
        message = decode(self._next_parts(seconds))
        if message.fields.get("kind") == "stopped":
            raise PlantError(f"it stopped: {message.fields.get('reason')}")
        for name, value in expected.items():
            if message.fields.get(name) != value:
                raise PlantError(f"it answered with {name} = {message.fields.get(name)!r}, and not {value!r}")
        return message

    def lost(self) -> bool:
        """Whether the plant is gone, and has left no word."""
        return bool(self._lost.poll(0) and not self._socket.poll(0))

    def _next_parts(self, seconds: float) -> list[bytes]:
        poller = zmq.Poller()
        for socket in (self._socket, self._lost):
            poller.register(socket, zmq.POLLIN)
        ready = dict(poller.poll(math.ceil(1000 * seconds)))
        if self._socket in ready or self._socket.poll(0):  # what it said before it was lost is still there
            return self._socket.recv_multipart()
        if ready:
            raise PlantError("the connection was lost")
        raise TimeoutError(f"no answer within {seconds:g} s")

    def close(self, reason: str) -> None:
        """Say why the plant is to stop, and wait for that to leave."""
        with suppress(zmq.ZMQError):  # there may be nobody to tell
            self._socket.send_multipart(encode({"kind": "stop", "reason": reason}), zmq.NOBLOCK)
        self._leave()


def _leave(context: zmq.Context, *sockets: zmq.Socket) -> None:
    """Close the sockets of a connection as soon as their last messages have left."""
    del sockets
    context.destroy(linger=_FAREWELL)
