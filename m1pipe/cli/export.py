"""`m1pipe export`: an encoder for programs that have no torch."""

import click

from m1pipe.cli.options import FORCE, option


@click.command()
@click.argument("run", type=click.Path())
@option("--onnx", required=True, type=click.Path(), help="The ONNX file to write.")
@FORCE
def export(*, run: str, onnx: str, force: bool) -> None:
    """Write the encoder in RUN as ONNX: levels in the units of training in, latent means out.

    Scaling of the genes is inside; gene names in their order, units and latent size are in the
    metadata. What is written is compared with torch at three batch sizes first. Needs the extra
    `onnx`; docs/formats.md has ten lines that use the file.

    m1pipe export runs/vae1 --onnx vae1.onnx
    """
    from m1pipe.encoder import load_encoder
    from m1pipe.encoder.onnx import export_onnx

    encoder = load_encoder(run)
    gap = export_onnx(encoder, onnx, force=force)
    click.echo(
        f"{onnx}: {len(encoder.genes):,} genes in {encoder.units} to {encoder.n_latent} latents; "
        f"within {gap:.0e} of torch"
    )
