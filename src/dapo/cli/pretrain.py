"""``dapo pretrain``: the embedded backbone from generated images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from dapo.cli.main import debug_option


@click.command(name="pretrain")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/pretrain"), show_default=True
)
@click.option(
    "--textures",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of photographed surfaces (JPEG), one sub-folder a material. Default: all are drawn.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Go on from this CLIP folder (OUT/backbone of another run) instead of starting at nothing.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    help="Images to learn from. Default: the recipe's. 0 with --start: its vision tower stays as it is.",
)
@click.option(
    "--side-samples",
    type=click.IntRange(min=0),
    help="Images for the side network, made anew. Default: the recipe's; 0: that of --start stays, if any.",
)
@click.option(
    "--prompt-samples",
    type=click.IntRange(min=0),
    help="Images to learn prompts from. Default: the recipe's; 0: words people wrote, nothing learned.",
)
@click.option("--keep-words", is_flag=True, help="With --start: its text tower stays as it is.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that draw."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compute. Default: torch's choice.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1.")
@debug_option
def command(
    out: Path,
    textures: Path | None,
    start: Path | None,
    seed: int,
    samples: int | None,
    side_samples: int | None,
    prompt_samples: int | None,
    keep_words: bool,
    workers: int,
    threads: int | None,
    device: str,
) -> None:
    """Train the embedded model on generated images of parts and flaws.

    Five stages: text tower, vision tower, a side network of convolutions beside it, prompts, thresholds; with
    --start, both towers go on from there, and the text tower learns the phrases that the lexicon has got
    since. Writes OUT/backbone, a Hugging Face CLIP folder with the side network in a file of its own, and
    OUT/model, a folder for --model. Interrupted, it goes on where it stopped when called again, on another
    machine too: copy OUT; what a stage of images goes on from is in files of 15 MiB at most.
    """
    import torch

    from dapo.pretraining.recipe import Recipe, pretrain

    if threads is not None:
        torch.set_num_threads(threads)
    if keep_words and start is None:
        raise click.UsageError("--keep-words is for --start, whose words are kept")
    recipe = replace(
        Recipe().seeded(seed), start=None if start is None else str(start), keep_words=keep_words
    )
    least = recipe.image.batch  # images of a step
    if samples is not None and samples < least and (samples or start is None):
        raise click.UsageError(
            f"expected at least {least} images, got {samples}; 0 is for --start, whose images stay learned"
        )
    if side_samples and side_samples < recipe.side_network.batch:
        raise click.UsageError(
            f"expected at least {recipe.side_network.batch} images for the side network, got {side_samples}; "
            "0 makes none, and that of --start stays"
        )
    if samples is not None:
        recipe = replace(recipe, image=replace(recipe.image, samples=samples))
    if prompt_samples is not None:
        recipe = replace(recipe, prompt_samples=prompt_samples)
    if side_samples is not None:
        recipe = replace(recipe, side_network=replace(recipe.side_network, samples=side_samples))
    folder = pretrain(
        out,
        textures=textures,
        recipe=recipe,
        workers=workers,
        device=device,
        log=lambda line: click.echo(line, err=True),
    )
    click.echo(str(folder))
