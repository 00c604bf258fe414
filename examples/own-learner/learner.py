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
        train = split.train[iid(len(split.train), place.index, place.count)]
        test = split.test[iid(len(split.test), place.index, place.count)]
        x = ((x - x[train].mean(axis=0)) / x[train].std(axis=0)).astype(np.float32)
        self.x, self.y, self.test_x, self.test_y = x[train], np.eye(3)[y[train]], x[test], np.eye(3)[y[test]]
        self.train_examples, self.test_examples = len(train), len(test)

    def initial_weights(self):
        return {"w": np.zeros((13, 3), np.float32), "b": np.zeros(3, np.float32)}

    def train(self, weights, task):
        w, b = weights["w"].copy(), weights["b"].copy()
        for batch in task.batches(len(self.x)):
            error = softmax(self.x[batch] @ w + b) - self.y[batch]
            w -= task.learning_rate * self.x[batch].T @ error / len(batch)
            b -= task.learning_rate * error.mean(axis=0)
        return TrainingResult({"w": w, "b": b}, examples=len(self.x))

    def evaluate(self, weights):
        p = softmax(self.test_x @ weights["w"] + weights["b"])
        right = p.argmax(axis=1) == self.test_y.argmax(axis=1)
        return Evaluation(len(p), {"accuracy": right.mean(), "loss": -np.log(p[self.test_y == 1]).mean()})


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
