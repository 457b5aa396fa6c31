"""A plant in another process: what it is asked, what it may answer, and that it stops whatever happens."""

from __future__ import annotations

import signal
import time
from typing import Any

import numpy as np
import pytest
from support.plants import Process, free_port, scripted

from dynamics.messages import encode
from dynamics.plant import Beginning, PlantError
from dynamics.remote_plant import RemotePlant, Signature

T, NX, NU, NF = 5, 3, 2, 4
rng = np.random.default_rng(0)
A, B, C = 0.5 * rng.normal(size=(NX, NX)), rng.normal(size=(NX, NU)), rng.normal(size=(NF, NX))
K, k = rng.normal(size=(T, NU, NX)), rng.normal(size=(T, NU))
START, CONTEXT = rng.normal(size=NX), rng.normal(size=2)
BEGINNING = Beginning(START, CONTEXT)
HELLO: dict[str, Any] = {"kind": "hello", "version": 1, "nx": NX, "nu": NU, "dt": 0.05, "frame_size": NF}
ZEROS = {"xs": np.zeros((T + 1, NX)), "us": np.zeros((T, NU)), "frames": np.zeros((T, NF))}


def rolled(act):
    """x' = A x + B u from START, with the bias of the context: states, actions and frames C x."""
    xs, us = [START + CONTEXT.sum()], []
    for t in range(T):
        us.append(np.clip(act(t, xs[-1]), -1, 1))
        xs.append(A @ xs[-1] + B @ us[-1])
    return np.array(xs), np.array(us), np.array(xs)[:-1] @ C.T


class Linear:
    """The plant of `rolled`, as one that answers."""

    def __call__(self, message):
        fields, arrays = message.fields, message.arrays
        if fields["kind"] == "hello":
            return encode(HELLO)
        if fields["kind"] == "stop":
            return None
        if fields["kind"] == "episode":
            self.number, self.xs, self.us = fields["episode"], [arrays["start"] + arrays["context"].sum()], []
            assert (fields["horizon"], fields["limit"]) == (T, 1.0)
            if fields["by"] == "controller":
                for t in range(T):
                    self.move(arrays["K"][t] @ self.xs[-1] + arrays["k"][t])
        else:
            assert (fields["episode"], fields["t"]) == (self.number, len(self.us))
            self.move(arrays["u"])
        if len(self.us) < T:
            now = {"x": self.xs[-1], "frame": C @ self.xs[-1]}
            return encode({"kind": "state", "episode": self.number, "t": len(self.us)}, now)
        whole = {"xs": np.array(self.xs), "us": np.array(self.us), "frames": np.array(self.xs)[:-1] @ C.T}
        return encode({"kind": "episode", "episode": self.number}, whole)

    def move(self, u):
        self.us.append(np.clip(u, -1, 1))
        self.xs.append(A @ self.xs[-1] + B @ self.us[-1])


def kinds(plant):
    """Of the messages that it was sent."""
    return [fields["kind"] for fields in plant.heard]


def remote(address, timeout=5.0):
    return RemotePlant(address, timeout, Signature(NX, NU, 0.05, NF))


def test_a_plant_follows_a_table_and_obeys_a_function():
    def act(t, x, frame):
        np.testing.assert_allclose(frame, C @ x)
        return np.sin(t + 3 * x[:NU])

    with scripted(Linear()) as plant:
        ours = remote(plant.address)
        for _ in range(2):
            followed, obeyed = ours.follow(BEGINNING, K, k), ours.obey(BEGINNING, T, act)
            for episode, wanted in (
                (followed, rolled(lambda t, x: K[t] @ x + k[t])),
                (obeyed, rolled(lambda t, x: np.sin(t + 3 * x[:NU]))),
            ):
                for ours_of, of in zip((episode.xs, episode.us, episode.frames), wanted, strict=True):
                    np.testing.assert_allclose(ours_of, of, rtol=1e-12)
    assert {*kinds(plant)} == {"hello", "episode", "action"}
    assert kinds(plant).count("hello") == 1


def test_an_action_is_cut_to_its_limit_before_it_is_sent():
    sent = []
    linear = Linear()

    def answer(message):
        sent.extend([message.arrays["u"]] if "u" in message.arrays else [])
        return linear(message)

    with scripted(answer) as plant:
        remote(plant.address).obey(BEGINNING, T, lambda t, x, frame: np.array([7.0, -0.5]))
    np.testing.assert_array_equal(sent, np.tile([1.0, -0.5], (T, 1)))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"version": 2}, "version = 2, and not 1"),
        ({"nx": 6}, "it has nx = 6, and the task nx = 3"),
        ({"nu": None}, "it has nu = None, and the task nu = 2"),
        ({"dt": 0.1}, "it has dt = 0.1, and the task dt = 0.05"),
        ({"nx": 10**400}, "and the task nx = 3"),
        ({"frame_size": 3}, "frame_size = 3"),
        ({"frame_size": [4]}, r"frame_size = \[4\]"),
        ({"kind": "episode"}, "it answered with kind = 'episode', and not 'hello'"),
    ],
)
def test_a_plant_that_is_not_the_tasks_is_refused(changes, what):
    with scripted(lambda message: encode({**HELLO, **changes})) as plant:
        with pytest.raises(PlantError, match=what):
            remote(plant.address).follow(BEGINNING, K, k)
        assert plant.stopped()
    assert kinds(plant) == ["hello", "stop"]


def episode(**changes):
    """The answer to an episode that is asked for: all zeros, but for the changes."""
    return encode({"kind": "episode", "episode": 1}, {**ZEROS, **changes})


def with_nan():
    """One that `encode` would not make."""
    header, *parts = episode()
    return [header, np.full((T + 1, NX), np.nan).tobytes(), *parts[1:]]


BROKEN = {
    "shape": (episode(xs=np.zeros((T, NX))), r"xs has shape \(5, 3\), and must have \(6, 3\)"),
    "missing": (encode({"kind": "episode", "episode": 1}), "us is missing"),
    "nan": (with_nan(), r"xs\[0, 0\] is nan, and must be finite"),
    "limit": (episode(us=np.full((T, NU), -1.01)), r"applied us\[0, 0\] = -1.01, beyond its limit of 1"),
    "frames": (episode(frames=np.zeros((T, 0))), r"frames has shape \(5, 0\), and must have \(5, 4\)"),
    "json": ([b"{", b""], "its first part is not JSON"),
    "bytes": ([episode()[0], b"", b"", b""], "xs has 0 bytes"),
    "number": (encode({"kind": "episode", "episode": 2}, ZEROS), "episode = 2, and not 1"),
    "kind": (encode({"kind": "state", "episode": 1}, ZEROS), "kind = 'state', and not 'episode'"),
    "stopped": (encode({"kind": "stopped", "reason": "emergency stop"}), "it stopped: emergency stop"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_answer_that_is_none_is_named_and_the_plant_told_to_stop(what):
    answer, says = BROKEN[what]

    def told(message):
        return encode(HELLO) if message.fields["kind"] == "hello" else answer

    with scripted(told) as plant:
        with pytest.raises(PlantError, match=f"plant {plant.address}, episode 1: .*{says}"):
            remote(plant.address).follow(BEGINNING, K, k)
        assert plant.stopped()
    assert kinds(plant) == ["hello", "episode", "stop"]


def test_a_silent_plant_is_lost_after_the_timeout_and_the_motion():
    def silent(message):
        return encode(HELLO) if message.fields["kind"] == "hello" else None

    with scripted(silent) as plant:
        began = time.monotonic()
        with pytest.raises(PlantError, match=r"no answer within 0.55 s"):
            remote(plant.address, timeout=0.3).follow(BEGINNING, K, k)
        assert 0.5 < time.monotonic() - began < 5.0
        assert plant.stopped() == "no answer within 0.55 s"


def test_where_no_plant_is_one_is_told_so():
    with pytest.raises(PlantError, match=r"no answer within 0.2 s; is a plant running there\?"):
        remote("tcp://127.0.0.1:9", timeout=0.2).follow(BEGINNING, K, k)
    with pytest.raises(PlantError, match="an address is such as tcp://robot:5555"):
        remote("nowhere", timeout=0.2).follow(BEGINNING, K, k)


def test_a_plant_that_dies_is_noticed_at_once():
    def dying(message):
        if message.fields["kind"] == "hello":
            return encode(HELLO)
        return plant.close()

    with scripted(dying) as plant:
        began = time.monotonic()
        with pytest.raises(PlantError, match="the connection was lost"):
            remote(plant.address, timeout=60.0).follow(BEGINNING, K, k)
        assert time.monotonic() - began < 5.0


def test_a_plant_whose_machine_hangs_is_noticed_by_its_heart():
    """Its process is halted, so that nothing of it runs and nothing says so."""
    plant = Process(free_port())
    try:
        ours = RemotePlant(plant.address, 60.0, Signature(4, 2, 0.05, 8))
        calls = []

        def act(t, x, frame):
            calls.append(t)
            if t == 2:
                plant.signal(signal.SIGSTOP)
            return np.zeros(2)

        began = time.monotonic()
        with pytest.raises(PlantError, match="the connection was lost"):
            ours.obey(Beginning(np.zeros(4), np.zeros(2)), 9, act)
        assert calls == [0, 1, 2]
        assert time.monotonic() - began < 20.0
    finally:
        plant.end()


def test_after_an_error_it_connects_anew():
    linear, failing = Linear(), [True]

    def once_failing(message):
        if message.fields["kind"] == "episode" and failing.pop():
            failing.append(False)
            return encode({"kind": "stopped", "reason": "not now"})
        return linear(message)

    with scripted(once_failing) as plant:
        ours = remote(plant.address)
        with pytest.raises(PlantError, match="not now"):
            ours.follow(BEGINNING, K, k)
        failing[:] = [False]
        np.testing.assert_allclose(ours.follow(BEGINNING, K, k).xs, rolled(lambda t, x: K[t] @ x + k[t])[0])


def test_a_plant_that_was_restarted_between_episodes_is_found_again():
    with scripted(Linear()) as plant:
        ours = remote(plant.address)
        ours.follow(BEGINNING, K, k)
    with scripted(Linear(), plant.address):
        np.testing.assert_allclose(ours.follow(BEGINNING, K, k).xs, rolled(lambda t, x: K[t] @ x + k[t])[0])


def test_a_stop_between_episodes_is_heard_before_the_next():
    linear = Linear()

    def stopping(message):
        """After its first episode."""
        answer = linear(message)
        if message.fields["kind"] == "episode":
            plant.unasked = encode({"kind": "stopped", "reason": "pressed"})
        return answer

    with scripted(stopping) as plant:
        ours = remote(plant.address)
        ours.follow(BEGINNING, K, k)
        with pytest.raises(PlantError, match="it stopped: pressed"):
            ours.follow(BEGINNING, K, k)


def test_a_table_that_is_not_finite_is_not_sent():
    with scripted(Linear()) as plant:
        with pytest.raises(PlantError, match=r"k\[2, 1\] is nan, and must be finite"):
            remote(plant.address).follow(BEGINNING, K, np.where(np.arange(2 * T).reshape(T, 2) == 5, np.nan, k))
        assert "finite" in plant.stopped()
    assert kinds(plant) == ["hello", "stop"]


@pytest.mark.parametrize(
    ("raised", "seen", "says"),
    [
        (KeyboardInterrupt(), PlantError, "episode 1: interrupted from the keyboard"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "ours"),
    ],
)
def test_an_interrupt_or_a_mistake_of_ours_stops_the_plant_first(raised, seen, says):
    def act(t, x, frame):
        if t == 3:
            raise raised
        return np.zeros(NU)

    with scripted(Linear()) as plant:
        with pytest.raises(seen, match=says):
            remote(plant.address).obey(BEGINNING, T, act)
        assert plant.stopped()
    assert kinds(plant) == ["hello", "episode", *3 * ["action"], "stop"]
