"""The smallest experiment on the arm, as assignments of settings."""

SETTINGS = [
    "task.horizon=8",
    "task.train_targets=2",
    "task.test_targets=4",
    "guider.rounds=2",
    "guider.learner.network.hidden=[8, 8]",
    "guider.learner.training.updates=8",
]
OPTIONS = [f"--set={setting}" for setting in SETTINGS]
TRAIN = ["train", "reacher", "--engine", "mujoco", "--iterations", "3", *OPTIONS]
