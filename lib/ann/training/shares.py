"""A training network of which each device holds a copy (a replica) and trains it on a part of the batch."""

from __future__ import annotations

import keras
from keras import ops


def replicated(kind: type[Replica], training_class: type) -> type:
    """A training model of `training_class` whose steps are those of replicas of this kind."""
    return type(f"{kind.__name__}{training_class.__name__}", (kind, training_class), {})


class Replica:
    """Put before a class of `TrainingModel`: trains as it does on the whole batch, of which each replica
    sees its rows.

    Keras' own step would clip the gradient of each replica before they are added up, and divide each
    replica's losses by counts of its own. Here counts are added up before losses are divided, and gradients
    before they are clipped.
    """

    def add_up(self, values: list) -> list:
        """Tensors of this replica -> their sums over all replicas."""
        raise NotImplementedError

    def loss_values(self, y_pred) -> dict:
        """This replica's shares, {name: scalar}: added up over the replicas they are the losses."""
        counts = self.add_up([count for _, count in y_pred.values()])
        return {
            name: total / ops.maximum(count, 1.0)
            for (name, (total, _)), count in zip(y_pred.items(), counts, strict=True)
        }


def moving_statistics(network: keras.Model) -> list[keras.Variable]:
    """The means and variances that batch normalisations collect."""
    names = ("moving_mean", "moving_variance")
    return [variable for variable in network.non_trainable_variables if variable.name in names]
