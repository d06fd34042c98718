"""Training on several devices with TensorFlow: `tf.distribute.MirroredStrategy`, one process for all."""

from __future__ import annotations

import tensorflow as tf

from ann.training.shares import Replica, moving_statistics


class Mirrored(Replica):
    """Built, like the network, inside of the strategy's scope. Batches are cut up here, row by row."""

    def __init__(self, *arguments, strategy: tf.distribute.Strategy):
        super().__init__(*arguments)
        self._strategy = strategy

    def compile(self, optimizer, **options):
        super().compile(optimizer=optimizer, **options)
        # the gradients it gets are added up already
        optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
        # without XLA: slower on CPUs, and it fails on virtual ones
        self._train = tf.function(self._on_replicas(self.train_replica), autograph=False)
        self._test = tf.function(self._on_replicas(self.test_replica), autograph=False)

    def add_up(self, values):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    def train_replica(self, batch):
        """A step on the rows of one replica; its shares of the losses."""
        with tf.GradientTape() as tape:
            shares = self.loss_values(self(batch, training=True))
            loss = self.optimizer.scale_loss(self.total(shares))
        gradients = tape.gradient(loss, self.trainable_weights)
        known = [gradient for gradient in gradients if gradient is not None]
        added = iter(self.add_up(known))
        gradients = [None if gradient is None else next(added) for gradient in gradients]
        self.optimizer.apply(gradients, self.trainable_weights)
        if self.network.train_batch_norm:
            self._share_statistics()
        return shares

    def test_replica(self, batch):
        """Shares of the losses of the rows of one replica."""
        return self.loss_values(self(batch, training=False))

    def take_step(self, batch):
        return self._train(self._cut(batch))

    def losses_of(self, batch):
        return self._test(self._cut(batch))

    def _share_statistics(self):
        """Make moving statistics, to which each replica has added those of its rows, the mean over them."""
        statistics = moving_statistics(self.network)
        values = [tf.convert_to_tensor(variable.value) for variable in statistics]
        context = tf.distribute.get_replica_context()
        for variable, mean in zip(
            statistics, context.all_reduce(tf.distribute.ReduceOp.MEAN, values), strict=True
        ):
            variable.assign(mean)

    def _on_replicas(self, function):
        def run(batches):
            shares = self._strategy.run(function, args=(batches,))
            return {
                name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, share, axis=None)
                for name, share in shares.items()
            }

        return run

    def _cut(self, batch):
        """{name: (B, ...)} -> the same with the rows on their replicas."""
        replicas = self._strategy.num_replicas_in_sync

        def rows_of(values):
            part = len(values) // replicas
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(values[context.replica_id_in_sync_group * part :][:part])
            )

        return {name: rows_of(values) for name, values in batch.items()}
