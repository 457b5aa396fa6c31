"""A plant for guided policy search: a process that runs episodes on a MuJoCo model, as a robot's would on the robot.

    python examples/plant.py gps/tasks/mujoco/reacher.xml --substeps 5
    gps train reacher --set run.plant.address=tcp://127.0.0.1:5555

It needs numpy, pyzmq and MuJoCo, and nothing of the framework: for a robot of your own, write another `Arm` and keep
the rest. docs/plant.md has the messages. Ctrl-C is the emergency stop.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo makes its names at run time)

import argparse
import json
import signal
import time

import mujoco
import numpy as np
import zmq


class Arm:
    """What is driven; x is all positions, then all velocities."""

    def __init__(self, model, substeps):
        self.model, self.substeps = mujoco.MjModel.from_xml_path(model), substeps
        self.data = mujoco.MjData(self.model)
        self.dt = substeps * self.model.opt.timestep
        self.about = {"nx": self.model.nq + self.model.nv, "nu": self.model.nu, "dt": self.dt, "frame_size": 0}

    def reset(self, start, context):
        """Go to where an episode begins; a context could say where to put the target."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos, self.data.qvel = np.split(start, [self.model.nq])
        return start

    def step(self, u):
        """Hold an action for dt; -1 and 1 are the ends of the actuators' ranges."""
        low, high = self.model.actuator_ctrlrange.T
        self.data.ctrl = low + (u + 1) / 2 * (high - low)
        mujoco.mj_step(self.model, self.data, self.substeps)
        return np.concatenate([self.data.qpos, self.data.qvel])

    def relax(self):
        """Nothing drives it any more."""
        self.data.ctrl = 0.0


class Trainer:
    """The one who asks: messages from and to it."""

    def __init__(self, address):
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.gone = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.set(zmq.HEARTBEAT_IVL, 1000)
        self.socket.set(zmq.HEARTBEAT_TIMEOUT, 3000)
        self.socket.bind(address)
        self.who = b""

    def read(self, seconds=None):
        """The next message and its arrays; empty ones where none comes in so many seconds."""
        if not self.socket.poll(None if seconds is None else int(1000 * seconds)):
            return {"kind": None}, {}
        who, header, *parts = self.socket.recv_multipart()
        if seconds is not None and who != self.who:  # in the middle of an episode
            return {"kind": "other", "reason": "another trainer spoke"}, {}
        self.who, header = who, json.loads(header)
        arrays = zip(header["arrays"].items(), parts, strict=True)
        return header, {name: np.frombuffer(part).reshape(shape) for (name, shape), part in arrays}

    def tell(self, arrays=None, **header):
        arrays = {name: np.asarray(values, float) for name, values in (arrays or {}).items()}
        header["arrays"] = {name: values.shape for name, values in arrays.items()}
        parts = [values.tobytes() for values in arrays.values()]
        self.socket.send_multipart([self.who, json.dumps(header).encode(), *parts])

    def lost(self):
        return bool(self.gone.poll(0) and self.gone.recv_multipart())


class Stopped(Exception):
    """An episode is over before its end."""


def run(arm, trainer, asked, given, options):
    """One episode as it was asked for; raises Stopped where nothing may move any more."""
    number, T, by_table = asked["episode"], asked["horizon"], asked["by"] == "controller"
    xs, us, began = [arm.reset(given["start"], given["context"])], [], time.monotonic()
    for t in range(T):
        if not by_table:
            trainer.tell({"x": xs[-1], "frame": []}, kind="state", episode=number, t=t)
        message, told = trainer.read(0 if by_table else options.patience)
        gone = trainer.lost()
        if gone or message["kind"] != (None if by_table else "action"):
            why = "the trainer is gone" if gone else "no action in time, or a message out of turn"
            raise Stopped(message.get("reason", why))
        u = given["K"][t] @ xs[-1] + given["k"][t] if by_table else told["u"]
        us.append(np.clip(u, -asked["limit"], asked["limit"]))
        xs.append(arm.step(us[-1]))
        if options.realtime:
            time.sleep(max(0.0, began + (t + 1) * arm.dt - time.monotonic()))
    arm.relax()
    trainer.tell({"xs": xs, "us": us, "frames": np.zeros((T, 0))}, kind="episode", episode=number)


def serve(arm, trainer, options):
    """Run whatever episodes are asked for."""
    while True:
        asked, given = trainer.read()
        if asked["kind"] == "hello":
            while trainer.lost():  # it was an earlier one
                pass
            trainer.tell(kind="hello", version=1, **arm.about)
        elif asked["kind"] == "episode":
            try:
                run(arm, trainer, asked, given, options)
            except Stopped as stopped:
                arm.relax()
                trainer.tell(kind="stopped", reason=str(stopped))
                print(f"stopped: {stopped}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="an MJCF file whose joints are hinges and slides")
    parser.add_argument("--address", default="tcp://127.0.0.1:5555")
    parser.add_argument("--substeps", type=int, default=5, help="physics steps per action")
    parser.add_argument("--realtime", action="store_true", help="take the time that a robot would")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds to wait for an action of the learner")
    options = parser.parse_args()
    arm, trainer = Arm(options.model, options.substeps), Trainer(options.address)
    print(f"a plant at {trainer.socket.get(zmq.LAST_ENDPOINT).decode()}", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background is started deaf to it
    try:
        serve(arm, trainer, options)
    except KeyboardInterrupt:
        arm.relax()
        trainer.tell(kind="stopped", reason="its emergency stop was pressed")
        print("emergency stop", flush=True)
    finally:
        arm.relax()


if __name__ == "__main__":
    main()
