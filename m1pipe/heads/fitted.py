"""A fitted head: what predicts from features, and how it was chosen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from m1pipe.data.targets import Kind
from m1pipe.data.transforms import GeneTransform
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.heads.features import FeatureMap
from m1pipe.heads.linear import LinearPart, OwnTerm
from m1pipe.models.heads import Head, head_probabilities, linear_layers
from m1pipe.models.mlp import evaluating

PREDICT_ROWS = 2048


@dataclass(eq=False)
class FittedHead:
    """A head with the scaling of its features.

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
    features : FeatureMap
        From features to the module's inputs.
    own : OwnTerm or None
        What each target's own gene adds.
    chosen : dict
        What inner folds chose: `alpha` (penalty of the linear part), `own_penalty`, `epochs` of
        the hidden part (0: it is left out), `linear` (false: labels by a network alone), `hidden`,
        `lr`, `n_seeds`, `share` of latents beside genes, `score` (how much of one of other
        studies' labels), `power` of a covariance; and the losses on held-out rows, `inner_loss`
        and `inner_loss_linear` (of the linear part alone): the squared error as a share of the
        variance, or the log loss with half a missed row more
        (`m1pipe.heads.inner_folds.MISSED_ROWS`). What does not apply is absent.
    curve : list of float
        Loss of the held-out rows before the first step and after every epoch.
    seconds : float
        What its networks took; of a pass over several heads an equal share.
    left_out : LinearPart or None
        Where inner folds prefer the network alone, the linear part that it might stand beside.
    """

    module: Head
    kind: Kind
    names: tuple[str, ...]
    units: Units
    features: FeatureMap
    own: OwnTerm | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0
    left_out: LinearPart | None = None

    @property
    def is_linear(self) -> bool:
        """Whether no hidden part was kept."""
        return self.module.hidden is None

    def predict(self, X: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Levels, or probabilities.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Features as in training, not scaled.
        own : ndarray, shape (n_samples, n_own), optional
            Levels of the targets' own genes, where the head has a term for them.

        Returns
        -------
        ndarray of float32
            Levels (n_samples, n_targets); probabilities of each class (n_samples, n_classes),
            rows summing to 1; for "multilabel" of each label (n_samples, n_labels).
        """
        if self.own is not None and own is None:
            raise ValueError("own: the head needs the levels of its targets' own genes")
        found: np.ndarray | None = None  # whole from the start: levels of many targets are large
        device = next(self.module.parameters()).device
        with evaluating(self.module), torch.no_grad():
            for start in range(0, max(len(X), 1), PREDICT_ROWS):
                here = slice(start, start + PREDICT_ROWS)
                x = torch.from_numpy(self.features.apply(X[here])).to(device)
                part = head_probabilities(self.kind, self.module(x)).cpu().numpy()
                if self.own is not None and own is not None:
                    self.own.add_to(part, own[here])
                if found is None:
                    found = np.empty((len(X), part.shape[1]), dtype=np.float32)
                found[here] = part
        assert found is not None
        return found

    def linear_part(self) -> "FittedHead":
        """The same head without its hidden part.

        Raises
        ------
        ValueError
            If it has no linear part.
        """
        linear = self.module.linear
        if linear is None:
            raise ValueError("a head that was trained as a network alone has no linear part")
        module = Head(linear.in_features, linear.out_features, None, linear=True)
        if self.left_out is None:
            module.linear = linear
        else:
            assert module.linear is not None
            values = {"weight": self.left_out.weight, "bias": self.left_out.bias}
            module.linear.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()})
        kept = ("alpha", "own_penalty", "scale", "score")
        chosen: dict[str, Any] = {k: v for k, v in self.chosen.items() if k in kept}
        if "inner_loss_linear" in self.chosen:
            chosen["inner_loss"] = self.chosen["inner_loss_linear"]
        return replace(
            self, module=module.eval(), chosen=chosen, curve=[], seconds=0.0, left_out=None
        )

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and values for JSON, from which `from_state` makes the same head."""
        arrays = {f"head.{k}": v.cpu().numpy() for k, v in self.module.state_dict().items()}
        scaler = self.features.scaler
        arrays |= {"scaler.location": scaler.location, "scaler.scale": scaler.scale}
        if self.features.basis is not None:
            arrays["scaler.basis"] = self.features.basis
        arrays |= {} if self.own is None else self.own.to_state()
        widths = [layer.out_features for layer in linear_layers(self.module)[:-1]]
        return arrays, {
            "kind": self.kind,
            "names": list(self.names),
            "units": asdict(self.units),
            "hidden": None if self.is_linear else widths,
            "linear": self.module.linear is not None,
            "scaler": scaler.kind,
            "own": self.own is not None,
            "chosen": self.chosen,
            "curve": self.curve,
        }

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> "FittedHead":
        """Head stored by `to_state`, on the CPU; also one of version 0.1, a network alone.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Of the shapes that the values in `meta` give.
        meta : mapping

        Raises
        ------
        InputError
            If the arrays and the values do not belong together.
        """
        try:
            location, scale = arrays["scaler.location"], arrays["scaler.scale"]
            if not (scale > 0).all():
                raise ValueError("scaler.scale holds numbers that are not positive")
            features = FeatureMap(
                GeneTransform(meta["scaler"], location, scale), arrays.get("scaler.basis")
            )
            n_out = 1 if meta["kind"] == "binary" else len(meta["names"])
            has_linear = bool(meta.get("linear", False))
            module = Head(features.n_inputs, n_out, meta["hidden"], linear=has_linear)
            weights = {k.removeprefix("head."): v for k, v in arrays.items() if "head." in k}
            module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
            names, units = tuple(meta["names"]), Units(**meta["units"])
            own = None
            if meta.get("own"):
                if "own.weights" in arrays:
                    _take_over_own_weights(module, arrays)
                own = OwnTerm.from_state(arrays)
            chosen, curve = dict(meta.get("chosen", {})), list(meta.get("curve", []))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"head: expected a stored head; {' '.join(str(error).split())}"
            ) from None
        return cls(module.eval(), meta["kind"], names, units, features, own, chosen, curve)


def _take_over_own_weights(module: Head, arrays: Mapping[str, np.ndarray]) -> None:
    """Fold into the output layer what version 0.1 took off a gene before its slope.

    There a gene counted by what the activations h did not tell of it: gene - (h - center) weights.
    """
    assert module.output is not None
    slope, column = arrays["own.slope"], np.maximum(arrays["own.column"], 0)
    told = arrays["own.weights"].astype(np.float64)[:, column] * slope
    bias = arrays["own.center"].astype(np.float64) @ told
    with torch.no_grad():
        module.output.weight.sub_(torch.from_numpy(told.T.astype(np.float32)))
        module.output.bias.add_(torch.from_numpy(bias.astype(np.float32)))
