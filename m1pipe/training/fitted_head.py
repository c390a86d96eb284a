"""A trained head with the scaling of its inputs: what predicts."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from m1pipe.data.targets import Kind
from m1pipe.data.transforms import GeneTransform
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.models.heads import Head, head_probabilities
from m1pipe.models.mlp import evaluating
from m1pipe.training.history import History

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
    """

    module: Head
    kind: Kind
    names: tuple[str, ...]
    units: Units
    scaler: GeneTransform
    history: History
    n_epochs: int

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Levels, or probabilities.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Features as in training, not standardised.

        Returns
        -------
        ndarray of float32
            Levels (n_samples, n_targets); probabilities of each class (n_samples, n_classes),
            rows summing to 1; for "multilabel" of each label (n_samples, n_labels).
        """
        device = next(self.module.parameters()).device
        pieces = []
        with evaluating(self.module), torch.no_grad():
            for start in range(0, max(len(X), 1), PREDICT_ROWS):
                x = torch.from_numpy(self.scaler.apply(X[start : start + PREDICT_ROWS]))
                pieces.append(head_probabilities(self.kind, self.module(x.to(device))).cpu())
        return torch.cat(pieces).numpy()

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and values for JSON, from which `from_state` makes the same head."""
        arrays = {f"head.{k}": v.cpu().numpy() for k, v in self.module.state_dict().items()}
        arrays |= {"scaler.location": self.scaler.location, "scaler.scale": self.scaler.scale}
        return arrays, {
            "kind": self.kind,
            "names": list(self.names),
            "units": asdict(self.units),
            "hidden": [m.out_features for m in self.module.hidden if isinstance(m, nn.Linear)],
            "scaler": self.scaler.kind,
            "history": asdict(self.history),
            "n_epochs": self.n_epochs,
        }

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> "FittedHead":
        """Head stored by `to_state`, on the CPU.

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
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"head: expected a stored head; {' '.join(str(error).split())}"
            ) from None
        return cls(module.eval(), meta["kind"], names, units, scaler, history, n_epochs)
