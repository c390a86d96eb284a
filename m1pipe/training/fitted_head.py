"""A trained head with the scaling of its inputs: what predicts."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Kind, Targets
from m1pipe.data.transforms import GeneTransform
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.models.heads import Head, head_probabilities
from m1pipe.models.mlp import evaluating
from m1pipe.training.history import History
from m1pipe.training.own_choice import choose_term
from m1pipe.training.own_term import Choice, OwnTerm, Residuals, fit_term

PREDICT_ROWS = 2048


@dataclass(eq=False)
class FittedHead:
    """A trained head with the scaling of its inputs.

    Attributes
    ----------
    module : Head
        In evaluation mode; regression outputs are in the targets' units.
    kind : str
        Kind of target.
    names : tuple of str
        Targets or classes, in the order of the prediction's columns.
    units : Units
        Of levels.
    scaler : GeneTransform
        Applied to the inputs before the network.
    history : History
        Losses per epoch; of levels as a share of their mean variance in the training rows.
    n_epochs : int
        Epochs behind the weights that were kept.
    own : OwnTerm or None
        What each target's own gene adds.
    """

    module: Head
    kind: Kind
    names: tuple[str, ...]
    units: Units
    scaler: GeneTransform
    history: History
    n_epochs: int
    own: OwnTerm | None = None

    @property
    def seconds(self) -> float:
        """What its epochs took; of a pass over several heads an equal share."""
        return float(sum(row["seconds"] for row in self.history.rows))

    def predict(self, X: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Levels, or probabilities.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Features as in training, not standardised.
        own : ndarray, shape (n_samples, n_own), optional
            Levels of the targets' own genes, where the head has a term for them.

        Returns
        -------
        ndarray of float32
            Levels (n_samples, n_targets); probabilities of each class (n_samples, n_classes),
            rows summing to 1; for "multilabel" of each label (n_samples, n_labels).
        """
        found: np.ndarray | None = None  # whole from the start: levels of many targets are large
        with evaluating(self.module), torch.no_grad():
            for start in range(0, max(len(X), 1), PREDICT_ROWS):
                here = slice(start, start + PREDICT_ROWS)
                hidden = self._activations(X[here])
                part = head_probabilities(self.kind, self.module.output(hidden)).cpu().numpy()
                if self.own is not None:
                    if own is None:
                        raise ValueError("own: this head needs the levels of the own genes")
                    self.own.add(part, hidden.cpu().numpy(), own[here])
                if found is None:
                    found = np.empty((len(X), *part.shape[1:]), dtype=part.dtype)
                found[here] = part
        assert found is not None
        return found

    def activations(self, X: np.ndarray) -> np.ndarray:
        """What the last hidden layer puts out, shape (n_samples, n_hidden)."""
        with evaluating(self.module), torch.no_grad():
            starts = range(0, max(len(X), 1), PREDICT_ROWS)
            return np.concatenate(
                [self._activations(X[s : s + PREDICT_ROWS]).cpu().numpy() for s in starts]
            )

    def _activations(self, X: np.ndarray) -> Tensor:
        device = next(self.module.parameters()).device
        hidden: Tensor = self.module.hidden(torch.from_numpy(self.scaler.apply(X)).to(device))
        return hidden

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and values for JSON, from which `from_state` makes the same head."""
        arrays = {f"head.{k}": v.cpu().numpy() for k, v in self.module.state_dict().items()}
        arrays |= {"scaler.location": self.scaler.location, "scaler.scale": self.scaler.scale}
        own_arrays, own = ({}, None) if self.own is None else self.own.to_state()
        history = asdict(self.history)
        if math.isinf(self.history.best_loss):  # no row was held out; JSON has no word for it
            del history["best_loss"]
        return arrays | own_arrays, {
            "kind": self.kind,
            "names": list(self.names),
            "units": asdict(self.units),
            "hidden": [m.out_features for m in self.module.hidden if isinstance(m, nn.Linear)],
            "scaler": self.scaler.kind,
            "history": history,
            "n_epochs": self.n_epochs,
            "own": own,
        }

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> "FittedHead":
        """Head stored by `to_state`, on the CPU.

        Parameters
        ----------
        arrays : dict of str to ndarray
            Of the shapes that the values in `meta` give.
        meta : dict

        Raises
        ------
        InputError
            If the arrays and the values do not belong together.
        """
        try:
            scaler = GeneTransform(
                meta["scaler"], arrays["scaler.location"], arrays["scaler.scale"]
            )
            n_out = 1 if meta["kind"] == "binary" else len(meta["names"])
            module = Head(scaler.location.size, n_out, meta["hidden"])
            weights = {k.removeprefix("head."): v for k, v in arrays.items() if "head." in k}
            module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
            names, units = tuple(meta["names"]), Units(**meta["units"])
            history = History(**meta["history"])
            n_epochs = int(meta["n_epochs"])
            own = OwnTerm.from_state(arrays, meta["own"]) if meta.get("own") else None
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"head: expected a stored head; {' '.join(str(error).split())}"
            ) from None
        return cls(module.eval(), meta["kind"], names, units, scaler, history, n_epochs, own)


def choose_own_term(
    head: FittedHead,
    X: np.ndarray,
    targets: Targets,
    own: OwnGenes,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
    groups: np.ndarray | None = None,
) -> Choice:
    """What held-out rows say of an own-gene term beside a trained head.

    Parameters
    ----------
    head : FittedHead
        Of levels; trained on `rows`.
    X : ndarray, shape (n_samples, n_features)
    targets, own : Targets, OwnGenes
        Of the same samples.
    rows, held_out : ndarray of int
    groups : ndarray, shape (n_samples,), optional
    """
    hidden = head.activations(X)
    residuals = head_residuals(head, targets, hidden)
    return choose_term(hidden, residuals, own, rows=rows, held_out=held_out, groups=groups)


def add_own_term(
    head: FittedHead,
    X: np.ndarray,
    targets: Targets,
    own: OwnGenes,
    *,
    rows: np.ndarray,
    choice: Choice,
) -> FittedHead:
    """A trained head with the own-gene term beside it.

    Parameters
    ----------
    head : FittedHead
    X : ndarray of float32, shape (n_samples, n_features)
    targets, own, rows
        As for `choose_own_term`.
    choice : Choice
        What held-out rows decided.
    """
    hidden = head.activations(X)
    residuals = head_residuals(head, targets, hidden)
    return replace(head, own=fit_term(hidden, residuals, own, rows, choice))


def head_residuals(head: FittedHead, targets: Targets, hidden: np.ndarray) -> Residuals:
    """Levels less those of the head.

    Parameters
    ----------
    head : FittedHead
    targets : Targets
        Levels of all samples.
    hidden : ndarray of float32, shape (n_samples, n_hidden)
        Activations of the head's last hidden layer.
    """
    output = head.module.output
    weight, bias = (p.detach().cpu().numpy() for p in (output.weight, output.bias))
    return Residuals(targets.values, hidden, weight, bias)
