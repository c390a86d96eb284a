"""`m1pipe export`: an encoder as one file, to share, and for programs that have no torch."""

import click

from m1pipe.cli.options import FORCE, option, say


@click.command()
@click.argument("run", type=click.Path())
@option("--onnx", type=click.Path(), help="The ONNX file to write.")
@option("--bundle", type=click.Path(), help="The zip to write: the run, its card, its ONNX.")
@FORCE
def export(*, run: str, onnx: str | None, bundle: str | None, force: bool) -> None:
    """Write the encoder in RUN as one file.

    A bundle stands for RUN wherever the encoder is wanted, in load_encoder too, which compares the
    SHA-256 of each part with the one recorded there. verify, plot history and fold: want the
    folder.

    ONNX takes levels in the units of training and gives latent means, without torch. Scaling of
    the genes is inside; gene names in their order, units and latent size are in the metadata. What
    is written is compared with torch at three batch sizes first. Needs the extra `onnx`;
    docs/formats.md has ten lines that use the file.

    m1pipe export runs/vae1 --bundle vae1.zip
    m1pipe export runs/vae1 --onnx vae1.onnx
    """
    if onnx is None and bundle is None:
        raise click.UsageError("expected --bundle FILE.zip, --onnx FILE.onnx, or both; found none")
    if bundle is not None:
        from m1pipe.workflow.export_bundle import export_bundle

        say(export_bundle(run, bundle, force=force))
    if onnx is not None:
        from m1pipe.encoder import load_encoder
        from m1pipe.encoder.onnx import export_onnx

        encoder = load_encoder(run)
        gap = export_onnx(encoder, onnx, force=force)
        say(
            f"{onnx}: {len(encoder.genes):,} genes in {encoder.units} to {encoder.n_latent} "
            f"latents; within {gap:.0e} of torch"
        )
