"""Latents of scVI: trained on one file of counts, taken of another. Needs scvi-tools, not m1pipe.

    python benchmarks/scvi_latents.py unlabelled.h5ad labelled.h5ad --latent 10 --seed 1 --out z.npy

All settings but the number of latents are scvi-tools' own, its number of epochs among them.
"""

import argparse
import json
import time

import anndata
import numpy as np
import scvi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unlabelled", help="h5ad of counts that scVI is trained on")
    parser.add_argument("labelled", help="h5ad of counts whose latents are wanted")
    parser.add_argument("--latent", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", required=True, help="latents, samples by units (npy)")
    args = parser.parse_args()
    scvi.settings.seed = args.seed
    cells = anndata.read_h5ad(args.unlabelled)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_latent=args.latent)
    begun = time.process_time()
    model.train(accelerator="cpu", logger=False, enable_progress_bar=False)
    seconds = time.process_time() - begun
    np.save(args.out, model.get_latent_representation(anndata.read_h5ad(args.labelled)))
    epochs = model.trainer.current_epoch
    print(json.dumps({"scvi-tools": scvi.__version__, "epochs": epochs, "cpu_s": seconds}))


if __name__ == "__main__":
    main()
