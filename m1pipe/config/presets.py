"""The published set-ups, by name."""

from typing import Any

from m1pipe.settings import check_choice

# None of the originals averaged weights, decayed them, raised beta from 0, or scaled its latents.
_PLAIN: dict[str, Any] = {
    "linear_skip": False,
    "schedule": "constant",
    "clip": 0.0,
    "ema": 0.0,
    "weight_decay": 0.0,
    "kl_warmup": 0.0,
    "latent_scale": "unit",
}

PRESETS: dict[str, dict[str, Any]] = {
    "m1": {
        **_PLAIN,
        "hidden": (4096, 2048, 1024, 512),
        "n_latent": 256,
        "batch_norm": False,
        "activation": "relu",
        "batch_size": 64,
        "lr": 1e-4,
        "epochs": 100,
    },
    "notebook": {
        **_PLAIN,
        "hidden": (256, 128, 64),
        "n_latent": 32,
        "batch_norm": True,
        "activation": "leaky_relu",
        "dropout": 0.2,
        "likelihood": "gaussian_unit",
        "batch_size": 64,
        "lr": 1e-3,
        "schedule": "plateau",
        "clip": 1.0,
    },
    "vaexprs": {
        **_PLAIN,
        "hidden": (512,),
        "n_latent": 2,
        "batch_norm": False,
        "activation": "sigmoid",
        "likelihood": "bernoulli",
        "transform": "minmax",
    },
    "dee2": {
        **_PLAIN,
        "hidden": (),
        "n_latent": 2000,
        "latent_activation": "relu",
        "output_activation": "sigmoid",
        "batch_norm": False,
        "likelihood": "gaussian_unit",
        "beta": 0.0,
        "lr": 1e-3,
        "batch_size": 128,
        "schedule": "plateau",
        "plateau_factor": 0.5,
        "plateau_patience": 5,
    },
    "overview": {
        **_PLAIN,
        "hidden": (128, 64),
        "n_latent": 10,
        "activation": "sigmoid",
        "batch_norm": False,
        "likelihood": "gaussian_unit",
    },
}


def preset_options(name: str) -> dict[str, Any]:
    """Settings of a published set-up by name.

    Raises
    ------
    InputError
        If there is no preset of that name.
    """
    check_choice("--preset", name, tuple(PRESETS))
    return PRESETS[name]
