"""examples/plant.py stops by itself: when its trainer is gone, silent, or not the only one."""

from __future__ import annotations

import time

import numpy as np
import pytest
import zmq
from support.plants import Process, free_port

from dynamics.messages import decode, encode

T = 60  # of 0.05 s
TABLE = {"K": np.zeros((T, 2, 4)), "k": np.full((T, 2), 2.0)}
BEGINNING = {"start": np.array([0.0, 1.6, 0.0, 0.0]), "context": np.zeros(2)}


@pytest.fixture(scope="module")
def plant():
    process = Process(free_port(), "--realtime", "--patience", "0.2")
    yield process
    process.end()


@pytest.fixture
def trainers(plant):
    """Makes trainers that have said hello, and, unless they come at a bad time, were answered."""
    context, all_of_them = zmq.Context(), []

    def greeted(answered=True):
        socket = context.socket(zmq.DEALER)
        all_of_them.append(socket)  # one that nobody holds would close
        socket.connect(plant.address)
        socket.send_multipart(encode({"kind": "hello", "version": 1}))
        assert not answered or heard(socket).fields == {
            "kind": "hello",
            "version": 1,
            "nx": 4,
            "nu": 2,
            "dt": 0.05,
            "frame_size": 0,
        }
        return socket

    yield greeted
    context.destroy(linger=0)
    time.sleep(0.2)  # the plant hears of it


def heard(socket):
    """The next message."""
    assert socket.poll(10_000)
    return decode(socket.recv_multipart())


def ask(socket, by, horizon=T):
    law = {name: values[:horizon] for name, values in TABLE.items()} if by == "controller" else {}
    header = {"kind": "episode", "episode": 1, "by": by, "horizon": horizon, "limit": 1.0}
    socket.send_multipart(encode(header, {**BEGINNING, **law}))


def test_a_plant_whose_trainer_is_gone_stops_in_the_middle_of_a_table_and_serves_the_next(plant, trainers):
    trainer = trainers()
    ask(trainer, "controller")
    time.sleep(0.2)
    began = time.monotonic()
    trainer.close(linger=0)
    assert plant.line() == "stopped: the trainer is gone"
    assert time.monotonic() - began < 1.0  # of 3 s
    following = trainers()
    ask(following, "controller", 4)
    us = heard(following).array("us", (4, 2))
    np.testing.assert_array_equal(us, np.ones((4, 2)))  # cut to the limit


def test_a_stop_is_obeyed_in_the_middle_of_a_table(plant, trainers):
    trainer = trainers()
    ask(trainer, "controller")
    time.sleep(0.2)
    trainer.send_multipart(encode({"kind": "stop", "reason": "enough"}))
    assert plant.line() == "stopped: enough"
    assert heard(trainer).fields == {"kind": "stopped", "reason": "enough"}


def test_a_plant_waits_for_an_action_no_longer_than_its_patience(plant, trainers):
    trainer = trainers()
    ask(trainer, "learner")
    assert heard(trainer).fields == {"kind": "state", "episode": 1, "t": 0}
    trainer.send_multipart(encode({"kind": "action", "episode": 1, "t": 0}, {"u": np.zeros(2)}))
    assert heard(trainer).fields["t"] == 1
    assert heard(trainer).fields["kind"] == "stopped"
    assert plant.line() == "stopped: no action in time, or a message out of turn"


def test_a_second_trainer_in_an_episode_stops_it(plant, trainers):
    trainer = trainers()
    ask(trainer, "controller")
    time.sleep(0.2)
    trainers(answered=False)
    assert heard(trainer).fields == {"kind": "stopped", "reason": "another trainer spoke"}
    assert plant.line() == "stopped: another trainer spoke"
