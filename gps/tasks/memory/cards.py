"""Three games of memory with a shuffled deck of cards: `autoencode`, `count-recall` and `repeat-previous`.

Rules, observations and rewards are those of the Python package popgym 1.0.7 (Morad et al., "POPGym: Benchmarking
Partially Observable Reinforcement Learning", ICLR 2023), from `popgym.envs` and `popgym.core.deck`. Its discrete
observations are one-hot here, as `gymnasium.spaces.flatten` makes them. All chance is in the deck, which `reset`
shuffles; `start` begins an episode with a deck that is given, so that another program can be followed card by card.

In all three a game of perfect answers returns 1 and one of wrong answers -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gps.settings import check_at_least, check_one_of
from gps.tasks.task import ActionSpace, State

CARDS, SUITS, RANKS = 52, 4, 13
KINDS = {"colors": 2, "suits": SUITS, "ranks": RANKS}


def sorted_deck(decks: int, kind: str) -> Int[np.ndarray, " N"]:
    """The kind of each of the 52 * `decks` cards, as a number from 0, before they are shuffled."""
    count = KINDS[kind]
    return np.arange(CARDS * decks, dtype=np.int32) % count


def _one_hot(index, size: int) -> Float[Array, "*n size"]:
    """Zeros where `index` is negative."""
    return jax.nn.one_hot(index, size, dtype=jnp.float32)


def _score(correct, scale: float) -> Float[Array, ""]:
    return jnp.where(correct, jnp.float32(scale), jnp.float32(-scale))


def _moment(data: dict[str, Array], seen: list[Array], hidden: list[Array], reward, done) -> State:
    """A state of a game that ends by its rules alone: never truncated."""
    obs = {"state": jnp.concatenate(seen), "privileged_state": jnp.concatenate(hidden)}
    zero = jnp.zeros((), jnp.float32)
    return State(data, obs, zero + reward, zero + done, {}, {"truncation": zero})


@dataclass(frozen=True)
class AutoencodeSettings:
    """How long the game is."""

    decks: int = 1  # of 52 cards each

    def __post_init__(self):
        check_at_least(self, 1, "decks")


class Autoencode:
    """Watch N cards, one a step, then name their suits in reverse order; 2N - 1 steps.

    An action is one of 4 suits, and counts only while playing: +-1/N each. The last card is shown together with the
    call to play, and is the first to be named.

    obs["state"] (6): one-hot of the mode (play, watch), and of the suit shown. While playing, from the second step on,
    upstream shows suit 0 whatever was dealt.

    obs["privileged_state"] (4N + 6): one-hot of the suit to be named now, zeros while there is none; one-hot suits of
    all cards in the order in which they are dealt (upstream's `get_state` has them in reverse); the mode (1 while
    watching); the cards seen and not yet named, divided by N.
    """

    actions = ActionSpace(SUITS, discrete=True)
    calls_host = False
    observation_size = 2 + SUITS

    def __init__(self, settings: AutoencodeSettings, name: str = "autoencode-easy"):
        self.name = name
        self.settings = settings
        self.deck = sorted_deck(settings.decks, "suits")
        self.count = len(self.deck)
        self.horizon = 2 * self.count - 1
        self.privileged_size = SUITS * (self.count + 1) + 2

    def reset(self, key: PRNGKeyArray) -> State:
        """Shuffle the deck and show the first card."""
        return self.start(jax.random.permutation(key, self.deck))

    def start(self, cards: Int[Array, " N"]) -> State:
        """Begin an episode in which cards of these suits are dealt, in this order."""
        return self._at(jnp.asarray(cards, jnp.int32), jnp.zeros((), jnp.int32), 0.0)

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Watch the next card, or name one."""
        cards, t = state.data["cards"], state.data["t"]
        playing = t >= self.count - 1
        reward = jnp.where(playing, _score(action == cards[self._held(t) - 1], 1 / self.count), 0.0)
        return self._at(cards, t + 1, reward)

    def _held(self, t):
        """Cards seen and not yet named after t steps."""
        return jnp.minimum(t + 1, self.horizon - t)

    def _at(self, cards, t, reward) -> State:
        """The game after t steps, of which the last gave this reward."""
        held = self._held(t)
        playing = t >= self.count - 1
        shown = jnp.where(t < self.count, cards[t], 0)
        named = jnp.where(playing & (held > 0), cards[held - 1], -1)
        watching = 1.0 - playing
        seen = [_one_hot(1 - playing, 2), _one_hot(shown, SUITS)]
        place = jnp.stack([watching, held / self.count])
        hidden = [_one_hot(named, SUITS), _one_hot(cards, SUITS).reshape(-1), place]
        return _moment({"cards": cards, "t": t}, seen, hidden, reward, t >= self.horizon)


@dataclass(frozen=True)
class CountRecallSettings:
    """How long the game is and what is counted."""

    decks: int = 1  # of 52 cards each; there are two such piles, of cards dealt and of cards asked for
    kind: str = "colors"  # what is counted: "colors" (2), "suits" (4) or "ranks" (13)

    def __post_init__(self):
        check_at_least(self, 1, "decks")
        check_one_of(self, "kind", KINDS)


class CountRecall:
    """See one card a step and say how many of the kind asked for were dealt so far; N - 1 steps, +-1/(N - 1) each.

    With K kinds there are C = N/K cards of each; an action is a count from 0 to C. The card on view counts.

    obs["state"] (2K): one-hot of the kind dealt, and of the kind asked for.

    obs["privileged_state"] (C + 1 + 2K): one-hot of the count that is right now, which upstream's `get_state` leaves
    to be read off; how often each kind was dealt, divided by C; how often each was asked for, divided by C. The card
    and the question, the rest of `get_state`, are in obs["state"].
    """

    calls_host = False

    def __init__(self, settings: CountRecallSettings, name: str = "count-recall-easy"):
        self.name = name
        self.settings = settings
        self.deck = sorted_deck(settings.decks, settings.kind)
        self.kinds = KINDS[settings.kind]
        self.most = len(self.deck) // self.kinds
        self.horizon = len(self.deck) - 1
        self.actions = ActionSpace(self.most + 1, discrete=True)
        self.observation_size = 2 * self.kinds
        self.privileged_size = self.most + 1 + 2 * self.kinds

    def reset(self, key: PRNGKeyArray) -> State:
        """Shuffle both piles, deal the first card and ask the first question."""
        deal, ask = jax.random.split(key)
        return self.start(jax.random.permutation(deal, self.deck), jax.random.permutation(ask, self.deck))

    def start(self, dealt: Int[Array, " N"], asked: Int[Array, " N"]) -> State:
        """Begin an episode in which these kinds are dealt and asked for, in this order."""
        none = jnp.zeros((2, self.kinds), jnp.int32)
        piles = jnp.stack([jnp.asarray(dealt, jnp.int32), jnp.asarray(asked, jnp.int32)])
        return self._at(piles, jnp.zeros((), jnp.int32), none, 0.0)

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Answer, and see the next card and question."""
        piles, t, counts = state.data["piles"], state.data["t"], state.data["counts"]
        reward = _score(action == counts[0, piles[1, t]], 1 / self.horizon)
        return self._at(piles, t + 1, counts, reward)

    def _at(self, piles, t, counts, reward) -> State:
        """The game after t steps; the counts are from before card and question t."""
        now = piles[:, t]
        shown = _one_hot(now, self.kinds)
        counts = counts + shown.astype(jnp.int32)
        right = _one_hot(counts[0, now[1]], self.most + 1)
        data = {"piles": piles, "t": t, "counts": counts}
        return _moment(data, [*shown], [right, *(counts / self.most)], reward, t >= self.horizon)


@dataclass(frozen=True)
class RepeatPreviousSettings:
    """How long the game is and how far back to remember."""

    decks: int = 1  # of 52 cards each
    lag: int = 4  # popgym's k: name the first of the last `lag` cards, the one on view included

    def __post_init__(self):
        check_at_least(self, 1, "decks", "lag")
        if self.lag >= CARDS * self.decks:
            raise ValueError(f"lag must be below the {CARDS * self.decks} cards of the game, not {self.lag}")


class RepeatPrevious:
    """See one card a step and name the suit of the card lag - 1 steps back; N - 1 steps, +-1/(N - lag) each.

    An action is one of 4 suits. It does not count before `lag` cards are seen, which is lag - 1 steps.

    obs["state"] (4): one-hot of the suit dealt.

    obs["privileged_state"] (4 lag + 4): one-hot suits of the last `lag` cards, so that the first four numbers are the
    suit to be named; zeros stand for cards not yet dealt, where upstream's `get_state` has suit 0. Then the share of
    each suit that is still in the deck.
    """

    actions = ActionSpace(SUITS, discrete=True)
    calls_host = False
    observation_size = SUITS

    def __init__(self, settings: RepeatPreviousSettings, name: str = "repeat-previous-easy"):
        self.name = name
        self.settings = settings
        self.deck = sorted_deck(settings.decks, "suits")
        self.count = len(self.deck)
        self.horizon = self.count - 1
        self.privileged_size = SUITS * (settings.lag + 1)

    def reset(self, key: PRNGKeyArray) -> State:
        """Shuffle the deck and show the first card."""
        return self.start(jax.random.permutation(key, self.deck))

    def start(self, cards: Int[Array, " N"]) -> State:
        """Begin an episode in which cards of these suits are dealt, in this order."""
        window = jnp.full(self.settings.lag, -1, jnp.int32)
        dealt = jnp.zeros(SUITS, jnp.int32)
        return self._at(jnp.asarray(cards, jnp.int32), jnp.zeros((), jnp.int32), window, dealt, 0.0)

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """Name a suit and see the next card."""
        data = state.data
        wanted = data["window"][0]
        reward = jnp.where(wanted >= 0, _score(action == wanted, 1 / (self.count - self.settings.lag)), 0.0)
        return self._at(data["cards"], data["t"] + 1, data["window"], data["dealt"], reward)

    def _at(self, cards, t, window, dealt, reward) -> State:
        """The game after t steps; window and suits dealt are from before card t."""
        shown = _one_hot(cards[t], SUITS)
        window = jnp.append(window[1:], cards[t])
        dealt = dealt + shown.astype(jnp.int32)
        data = {"cards": cards, "t": t, "window": window, "dealt": dealt}
        hidden = [_one_hot(window, SUITS).reshape(-1), 1.0 - dealt / (self.count // SUITS)]
        return _moment(data, [shown], hidden, reward, t >= self.horizon)
