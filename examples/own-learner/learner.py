"""A learner in thirty lines: softmax regression on the chemistry of 178 wines, in NumPy."""

import numpy as np
from sklearn.datasets import load_wine

from metisfl_learner import Evaluation, Learner, TrainingResult
from metisfl_learner.partitioning import held_out_split, iid


class WineLearner(Learner):
    def __init__(self, context):
        super().__init__(context)
        x, y = load_wine(return_X_y=True)
        split, place = held_out_split(y), context.partition
        mine = split.train[iid(len(split.train), place.index, place.count)]
        test = split.test[iid(len(split.test), place.index, place.count)]
        x = ((x - x[mine].mean(0)) / x[mine].std(0)).astype(np.float32)
        self.x, self.y, self.test_x, self.test_y = x[mine], y[mine], x[test], y[test]
        self.train_examples, self.test_examples = len(mine), len(test)

    def initial_weights(self):
        return {"w": np.zeros((13, 3), np.float32), "b": np.zeros(3, np.float32)}

    def train(self, weights, task):
        w, b = weights["w"].copy(), weights["b"].copy()
        for batch in task.batches(len(self.x)):
            error = probabilities(self.x[batch], w, b) - np.eye(3, dtype=np.float32)[self.y[batch]]
            w -= task.learning_rate * self.x[batch].T @ error / len(batch)
            b -= task.learning_rate * error.mean(0)
        return TrainingResult({"w": w, "b": b}, examples=len(self.x))

    def evaluate(self, weights):
        p = probabilities(self.test_x, weights["w"], weights["b"])
        right = p.argmax(1) == self.test_y
        loss = -np.log(p[np.arange(len(p)), self.test_y])
        return Evaluation(len(p), {"accuracy": right.mean(), "loss": loss.mean()})


def probabilities(x, w, b):
    scores = np.exp(x @ w + b - (x @ w + b).max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)
