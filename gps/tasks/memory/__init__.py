"""The memory tasks of POPGym that guided policy optimisation was shown on: six families, each at three difficulties.

Each is an `Environment` whose rules are those of the Python package popgym 1.0.7 (Morad et al., ICLR 2023). The learner
sees upstream's observation and must remember; obs["privileged_state"] is what has to be remembered, upstream's
`get_state`, in the form of network input. The previous action is in neither.
"""

from __future__ import annotations

from typing import Any

from gps.tasks.memory.battleship import Battleship, BattleshipSettings
from gps.tasks.memory.cards import (
    Autoencode,
    AutoencodeSettings,
    CountRecall,
    CountRecallSettings,
    RepeatPrevious,
    RepeatPreviousSettings,
)
from gps.tasks.memory.cartpole import CartPoleSettings, StatelessCartPole

_AUTOENCODE = "watch {} cards, then name their suits in reverse order"
_BATTLESHIP = "sink ships of 2, 3, 3 and 4 cells on a hidden board of {0} x {0}"
_COUNT = "count {} in {} cards, and say how many of one kind were dealt"
_CARTPOLE = "balance a pole for {} steps without seeing velocities"
_NOISY = "balance a pole without seeing velocities, with noise {} in position and angle"
_REPEAT = "see {} cards and name the suit of the one {} steps back"

# name: settings, class, one line about it
FAMILY: dict[str, tuple[Any, Any, str]] = {
    "autoencode-easy": (AutoencodeSettings(1), Autoencode, _AUTOENCODE.format(52)),
    "autoencode-medium": (AutoencodeSettings(2), Autoencode, _AUTOENCODE.format(104)),
    "autoencode-hard": (AutoencodeSettings(3), Autoencode, _AUTOENCODE.format(156)),
    "battleship-easy": (BattleshipSettings(8), Battleship, _BATTLESHIP.format(8)),
    "battleship-medium": (BattleshipSettings(10), Battleship, _BATTLESHIP.format(10)),
    "battleship-hard": (BattleshipSettings(12), Battleship, _BATTLESHIP.format(12)),
    "count-recall-easy": (CountRecallSettings(1, "colors"), CountRecall, _COUNT.format("colours", 52)),
    "count-recall-medium": (CountRecallSettings(2, "suits"), CountRecall, _COUNT.format("suits", 104)),
    "count-recall-hard": (CountRecallSettings(4, "ranks"), CountRecall, _COUNT.format("ranks", 208)),
    "stateless-cartpole-easy": (CartPoleSettings(200), StatelessCartPole, _CARTPOLE.format(200)),
    "stateless-cartpole-medium": (CartPoleSettings(400), StatelessCartPole, _CARTPOLE.format(400)),
    "stateless-cartpole-hard": (CartPoleSettings(600), StatelessCartPole, _CARTPOLE.format(600)),
    "noisy-stateless-cartpole-easy": (CartPoleSettings(200, 0.1), StatelessCartPole, _NOISY.format(0.1)),
    "noisy-stateless-cartpole-medium": (CartPoleSettings(200, 0.2), StatelessCartPole, _NOISY.format(0.2)),
    "noisy-stateless-cartpole-hard": (CartPoleSettings(200, 0.3), StatelessCartPole, _NOISY.format(0.3)),
    "repeat-previous-easy": (RepeatPreviousSettings(1, 4), RepeatPrevious, _REPEAT.format(52, 3)),
    "repeat-previous-medium": (RepeatPreviousSettings(2, 32), RepeatPrevious, _REPEAT.format(104, 31)),
    "repeat-previous-hard": (RepeatPreviousSettings(3, 64), RepeatPrevious, _REPEAT.format(156, 63)),
}
