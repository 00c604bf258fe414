"""PyTorch: give a module, data and a loss; the training loop is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from metisfl_learner.learner import (
    Array,
    Capability,
    Evaluation,
    Learner,
    LearnerContext,
    TrainingResult,
    TrainingTask,
    Weights,
)

Examples: TypeAlias = Dataset[Any] | tuple[Tensor, Tensor]
"""A map-style data set of (input, target) pairs, or one tensor of inputs and one of targets."""

EVALUATION_BATCH = 512


class Optimizer(Protocol):
    """What the loop needs of an optimiser; those of torch.optim have it."""

    def zero_grad(self) -> None: ...

    def step(self) -> object: ...


OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter], float], Optimizer]
"""From parameters and a learning rate to an optimiser."""


class GradientDescent:
    """Plain stochastic gradient descent, the local optimiser of FedAvg (McMahan et al. 2017, arXiv 1602.05629).

    torch.optim.SGD does the same, but all of torch.optim imports torch's compiler when first used, which costs each
    learner seconds and some 80 MB.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-self._learning_rate)


class ProximalTerm:
    """The gradient of FedProx's term, mu / 2 · |w − w_received|², for parameters that hold the received model now.

    The anchor is a copy of their values at construction, one more model in memory.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], mu: float) -> None:
        self._anchored = [(parameter, parameter.detach().clone()) for parameter in parameters]
        self._mu = mu

    def add_to_gradients(self) -> None:
        """To be called after each backward pass. A parameter without a gradient has not left its anchor."""
        with torch.no_grad():
            for parameter, anchor in self._anchored:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - anchor, alpha=self._mu)


class Correction:
    """SCAFFOLD's correction of the gradients, c − c_i, for a module's parameters by name."""

    def __init__(self, module: nn.Module, correction: Mapping[str, Array]) -> None:
        self._corrections = [
            (parameter, torch.tensor(correction[name]).to(parameter))
            for name, parameter in module.named_parameters()
            if name in correction
        ]

    def add_to_gradients(self) -> None:
        """To be called after each backward pass."""
        for parameter, correction in self._corrections:
            # Without a gradient of its own it is moved as well: its mean over all learners is not zero.
            parameter.grad = correction.clone() if parameter.grad is None else parameter.grad.add_(correction)


class TorchLearner(Learner):
    """A learner around a torch module.

    `loss` maps (outputs, targets) to the mean loss of a batch. A fresh optimiser is made for every task, so none of
    its state crosses rounds. Buffers, such as the running statistics of BatchNorm, and parameters that need no gradient
    travel as not trainable. The module stays on the device it is given on. `train` and `test` as in `Examples`; `test`
    may be empty. Override `measure` for other metrics than loss and, for class labels, accuracy.

    Raises TypeError for data without a length and ValueError for no training examples, unless this is an evaluator.
    """

    framework = "torch"
    supports = (Capability.PROXIMAL_TERM, Capability.CONTROL_VARIATES)

    def __init__(
        self,
        context: LearnerContext,
        model: nn.Module,
        train: Examples,
        test: Examples,
        loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
        optimizer: OptimizerFactory = GradientDescent,
    ) -> None:
        super().__init__(context)
        torch.set_num_threads(context.threads)
        self.model = model
        self._loss = loss
        self._optimizer = optimizer
        self._train = _dataset("train", train)
        self._test = _dataset("test", test)
        self.train_examples = _length(self._train)
        self.test_examples = _length(self._test)
        if self.train_examples == 0 and not context.evaluator:
            raise ValueError("there are no training examples")
        trainable = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
        self.not_trainable = [name for name in model.state_dict() if name not in trainable]

    def initial_weights(self) -> Weights:
        return self._weights()

    def train(self, weights: Weights, task: TrainingTask) -> TrainingResult:
        torch.manual_seed(task.seed)
        self._load(weights)
        self.model.train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = self._optimizer(parameters, task.learning_rate)
        terms: list[ProximalTerm | Correction] = []
        if task.proximal_mu:
            terms.append(ProximalTerm(parameters, task.proximal_mu))
        if task.correction is not None:
            terms.append(Correction(self.model, task.correction))
        total, seen = 0.0, 0
        for inputs, targets in self._batches(self._train, task.batches(self.train_examples)):
            optimizer.zero_grad()
            loss = self._loss(self.model(inputs), targets)
            loss.backward()
            for term in terms:
                term.add_to_gradients()
            optimizer.step()
            total += float(loss.detach()) * len(targets)
            seen += len(targets)
        return TrainingResult(self._weights(), self.train_examples, metrics={"train_loss": total / seen})

    def evaluate(self, weights: Weights) -> Evaluation:
        self._load(weights)
        self.model.eval()
        order = np.arange(self.test_examples)
        batches = (order[start : start + EVALUATION_BATCH] for start in range(0, len(order), EVALUATION_BATCH))
        sums: dict[str, float] = {}
        with torch.inference_mode():
            for inputs, targets in self._batches(self._test, batches):
                for name, value in self.measure(self.model(inputs), targets).items():
                    sums[name] = sums.get(name, 0.0) + value * len(targets)
        means = {name: value / self.test_examples for name, value in sums.items()}
        return Evaluation(examples=self.test_examples, metrics=means)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Metrics of one batch, each a mean over its examples."""
        metrics = {"loss": float(self._loss(outputs, targets))}
        if outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
            metrics["accuracy"] = float((outputs.argmax(dim=1) == targets).float().mean())
        return metrics

    def _batches(self, dataset: Dataset[Any], batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        pairs: Iterable[Any]
        if isinstance(dataset, TensorDataset):
            # Takes a whole batch of indices at once.
            pairs = (dataset[torch.from_numpy(batch)] for batch in batches)
        else:
            pairs = DataLoader(dataset, batch_sampler=_Sampler(batches))
        for inputs, targets in pairs:
            yield inputs.to(device), targets.to(device)

    def _weights(self) -> Weights:
        return {name: _array(name, tensor) for name, tensor in self.model.state_dict().items()}

    def _load(self, weights: Weights) -> None:
        self.model.load_state_dict({name: _tensor(array) for name, array in weights.items()})


class _Sampler(torch.utils.data.Sampler[list[int]]):
    """Batches of indices in the form a DataLoader wants."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._iterable = batches

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._iterable)


def _tensor(array: Any) -> Tensor:
    # torch.tensor copies: the arrays are read-only, which a tensor cannot be.
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def _array(name: str, tensor: Tensor) -> Any:
    if tensor.dtype == torch.bfloat16:
        # torch hands no bfloat16 to NumPy, but its bits.
        return tensor.detach().cpu().view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    try:
        return tensor.detach().cpu().numpy().copy()
    except TypeError:
        raise TypeError(f"tensor '{name}' is {tensor.dtype}, which NumPy does not have; keep it as float32") from None


def _dataset(name: str, examples: Examples) -> Dataset[Any]:
    if isinstance(examples, tuple):
        return TensorDataset(*examples)
    if isinstance(examples, IterableDataset) or not hasattr(examples, "__len__"):
        raise TypeError(f"the {name} data set has no length; a map-style data set is needed")
    return examples


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)
