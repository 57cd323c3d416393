"""Networks that learn together: what every `train_step` of dlcli needs of Keras and tf.distribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


class Trainer(keras.Model):
    """A `keras.Model` whose subclasses have a `train_step` and, where it says something, a `test_step`.

    A step reads `(batch, targets)` from the stream, where `batch` holds all that is random about it: so a training
    goes on exactly where it stopped, and any number of devices sees the same draws.

    Args:
        networks: role -> network.
        players: player -> the roles that its optimizer changes; the first player's weights are those that are
            averaged (`regularization.ema`).
        logs: what an epoch shows, each the mean over its steps.
        updates: player -> updates in a step, 1 when left out: a schedule counts its own player's updates.
    """

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        players: Mapping[str, Sequence[str]],
        logs: Sequence[str],
        updates: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(name="trainer")
        self.networks = dict(networks)
        self.players = {player: tuple(roles) for player, roles in players.items()}
        self.updates = {player: (updates or {}).get(player, 1) for player in players}
        self.trackers = {name: keras.metrics.Mean(name=name) for name in logs}
        self._optimizers: dict[str, keras.optimizers.Optimizer] = {}
        self.built = True  # the networks are; there is no `call`

    def variables_of(self, player: str) -> list[keras.Variable]:
        """The weights that a player learns."""
        return [
            variable for role in self.players[player] for variable in self.networks[role].trainable_variables
        ]

    def compile_players(
        self, optimizers: Mapping[str, keras.optimizers.Optimizer], steps_per_execution: int = 1
    ) -> None:
        """Gives each player its optimizer; the model's own optimizer is then one around them all."""
        self._optimizers = dict(optimizers)
        owner = {id(variable): player for player in self.players for variable in self.variables_of(player)}
        first, *others = optimizers.values()
        whole = (
            keras.optimizers.MultiOptimizer(lambda variable: optimizers[owner[id(variable)]])
            if others
            else first
        )
        self.compile(optimizer=whole, steps_per_execution=steps_per_execution)
        whole.build(self.trainable_variables)

    def optimizer_of(self, player: str) -> keras.optimizers.Optimizer:
        """A player's optimizer."""
        return self._optimizers[player]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras sets them back before each epoch."""
        return list(self.trackers.values())

    def penalties(self, player: str) -> Any:
        """The sum of a player's weight penalties (`regularization.l1`, `.l2`)."""
        return sum(loss for role in self.players[player] for loss in self.networks[role].losses)

    def minimize(self, player: str, loss: Any, tape: tf.GradientTape) -> None:
        """One update of a player's weights.

        Args:
            player: whose.
            loss: mean over the replica's examples; the mean over replicas is what is minimized, as a single device
                with the whole batch would.
            tape: recorded the loss.
        """
        variables = self.variables_of(player)
        share = tf.ones_like(loss) / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(loss, variables, output_gradients=share)
        self._optimizers[player].apply(gradients, variables)

    def log(self, **values: Any) -> dict[str, Any]:
        """Adds a step's values, and gives the means of the epoch so far."""
        for name, value in values.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}
