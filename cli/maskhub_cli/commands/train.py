"""``maskhub train``: learns a mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskhub_cli.options import BASE_HELP, FormatOption, JsonOption, QuietOption, RevisionOption, TokenOption
from maskhub_cli.output import Format, Output

if TYPE_CHECKING:
    from maskhub.training.loop import TrainResult
    from maskhub.training.settings import TrainSettings

DATA, WEIGHTS, METHOD, TRAINER, RESULT = "Examples", "Which weights", "Method", "Training", "Output"


def train(
    base: Annotated[str, typer.Argument(metavar="BASE", help=BASE_HELP, show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RUN", help="A new folder for the run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be masked, and the memory it takes.")
    ] = False,
    train_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV, TSV, JSON lines or Parquet, plain or gzipped; a folder of images.",
            rich_help_panel=DATA,
        ),
    ] = None,
    eval_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Examples to evaluate on.", rich_help_panel=DATA)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME[/CONFIG]", help="A dataset on the Hub, in place of files.", rich_help_panel=DATA),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="text-classification, token-classification, multiple-choice, regression, text-generation or "
            "image-classification. Default: found by the columns.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Text, tokens, prompt or image. Default: found by the usual names.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    pair_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The second text, or the choices.", rich_help_panel=DATA),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Each example's class, tags, right choice or number.", rich_help_panel=DATA
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="all, upper (all but the lowest sixth), 2-11, 0,3,5 or top:4, and what is outside all layers. "
            "Default: the recipe's.",
            rich_help_panel=WEIGHTS,
            show_default=False,
        ),
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(metavar="KINDS", help="Of Q K V AO I O P (the paper's letters).", rich_help_panel=WEIGHTS),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Only weights in whose name this is found.", rich_help_panel=WEIGHTS),
    ] = None,
    structure: Annotated[
        str,
        typer.Option(
            metavar="weights|heads|rows|layers", help="What one score decides about.", rich_help_panel=WEIGHTS
        ),
    ] = "weights",
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="masked|frozen|dense",
            help="The task's new layer: random and masked, random as it is, or trained. Default: the recipe's.",
            rich_help_panel=WEIGHTS,
            show_default=False,
        ),
    ] = None,
    train_biases: Annotated[
        bool, typer.Option("--train-biases", help="Train the base's biases, too.", rich_help_panel=WEIGHTS)
    ] = False,
    train_norms: Annotated[
        bool, typer.Option("--train-norms", help="Train its LayerNorms, too.", rich_help_panel=WEIGHTS)
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="default|paper",
            help="Defaults of --learning-rate, --beta2, --l2-sp, --initial-sparsity, --score-range, --layers and "
            "--classifier: 4e-3, 0.95, by length, 0.005, 0.6, all, dense; or Zhao et al.'s: 1e-3, 0.999, 0, "
            "0.05, as wide as that gives, upper, masked.",
            rich_help_panel=METHOD,
        ),
    ] = "default",
    binarizer: Annotated[
        str,
        typer.Option(
            metavar="threshold|sign|bernoulli|topk|nm", help="Which scores keep their weight.", rich_help_panel=METHOD
        ),
    ] = "threshold",
    threshold: Annotated[
        float, typer.Option(help="A weight is kept where its score is above this.", rich_help_panel=METHOD)
    ] = 1e-2,
    topk_scope: Annotated[
        str,
        typer.Option(metavar="tensor|global", help="What has the sparsity exactly, by topk.", rich_help_panel=METHOD),
    ] = "tensor",
    nm: Annotated[
        str, typer.Option(metavar="N:M", help="Keep N of M neighbouring inputs, by nm.", rich_help_panel=METHOD)
    ] = "2:4",
    score_init: Annotated[
        str,
        typer.Option(
            metavar="uniform|magnitude|random",
            help="Scores spread evenly; or near the threshold, the smallest or random weights dropped.",
            rich_help_panel=METHOD,
        ),
    ] = "uniform",
    initial_sparsity: Annotated[
        float | None,
        typer.Option(
            help="Share of the weights that start dropped. Default: the recipe's.",
            rich_help_panel=METHOD,
            show_default=False,
        ),
    ] = None,
    score_range: Annotated[
        float | None,
        typer.Option(
            help="Width of the range that uniform scores start in. Default: the recipe's.",
            rich_help_panel=METHOD,
            show_default=False,
        ),
    ] = None,
    final_sparsity: Annotated[
        float | None,
        typer.Option(help="Go there, by topk exactly, else by the penalty.", rich_help_panel=METHOD),
    ] = None,
    sparsity_schedule: Annotated[
        str, typer.Option(metavar="cubic|steps", help="How it gets there.", rich_help_panel=METHOD)
    ] = "cubic",
    sparsity_penalty: Annotated[
        float, typer.Option(help="How hard all scores are moved to the wanted sparsity.", rich_help_panel=METHOD)
    ] = 0.0,
    l2_sp: Annotated[
        float | None,
        typer.Option(
            help="Share of the way that each score goes back to its initial value after a step. Default: the recipe's; "
            "by length is 3 / steps, but 0.0015 to 0.007.",
            rich_help_panel=METHOD,
            show_default=False,
        ),
    ] = None,
    score_margin: Annotated[
        float | None,
        typer.Option(
            help="Train only scores that start so near to the threshold. Default: the recipe's.",
            rich_help_panel=METHOD,
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Of the scores (Adam). Default: the recipe's.", rich_help_panel=TRAINER, show_default=False),
    ] = None,
    beta2: Annotated[
        float | None,
        typer.Option(
            help="Adam's: the share that its mean square of gradients keeps in a step. Default: the recipe's.",
            rich_help_panel=TRAINER,
            show_default=False,
        ),
    ] = None,
    dense_learning_rate: Annotated[
        float | None,
        typer.Option(help="Of what is trained besides scores; the same by default.", rich_help_panel=TRAINER),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the examples.", rich_help_panel=TRAINER)] = 10.0,
    batch_size: Annotated[
        int, typer.Option(help="Examples a batch, of all processes together.", rich_help_panel=TRAINER)
    ] = 32,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="Batches a step.", rich_help_panel=TRAINER)] = 1,
    max_length: Annotated[int, typer.Option(help="Tokens an example is cut to.", rich_help_panel=TRAINER)] = 128,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises.", rich_help_panel=TRAINER)
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of scores, classifier and order.", rich_help_panel=TRAINER)] = 0,
    eval_steps: Annotated[
        int, typer.Option(help="Steps between evaluations and checkpoints.", rich_help_panel=TRAINER)
    ] = 60,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Picks the best evaluation: f1, matthews_correlation, loss. Default: the task's.",
            rich_help_panel=TRAINER,
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Evaluations without a better metric before it stops.", rich_help_panel=TRAINER)
    ] = 10,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|fp16", help="Of the passes; scores stay fp32.", rich_help_panel=TRAINER)
    ] = "fp32",
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Less memory, by computing passes twice.", rich_help_panel=TRAINER
        ),
    ] = False,
    report_to: Annotated[
        str, typer.Option(help="Trackers of transformers' Trainer: tensorboard, wandb.", rich_help_panel=TRAINER)
    ] = "none",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN.", rich_help_panel=TRAINER)
    ] = False,
    base_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the base to record in the mask; default: BASE.", rich_help_panel=RESULT
        ),
    ] = None,
    revision: RevisionOption = None,
    eval_split: Annotated[
        float | None, typer.Option(help="Share of the training examples to hold out for that.")
    ] = None,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints", help="Keep checkpoints.")] = False,
    token: TokenOption = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn which of the base's weights a task keeps.

    RUN gets scores, metrics, checkpoints and the packed mask.msk. The defaults learned good masks in few bytes
    (docs/training.md); --recipe paper is the way of Zhao et al. 2020. Ctrl-C saves the state; the same command with
    --resume goes on. The run records itself: 'maskhub plot RUN' draws it. --quiet prints the mask's path.

    Example: maskhub train user/base --train-file train.csv --eval-file dev.csv -o run
    """
    from maskhub.training import processes
    from maskhub.training.settings import settings_from

    if output is None and not dry_run:
        raise typer.BadParameter("a folder for the run is needed", param_hint="--output")
    settings = settings_from(
        base=base,
        train_file=train_file,
        eval_file=eval_file,
        dataset=dataset,
        task=task,
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        layers=layers,
        target_modules=target_modules,
        pattern=pattern,
        structure=structure,
        classifier=classifier,
        train_biases=train_biases,
        train_norms=train_norms,
        recipe=recipe,
        binarizer=binarizer,
        threshold=threshold,
        topk_scope=topk_scope,
        nm=nm,
        score_init=score_init,
        initial_sparsity=initial_sparsity,
        score_range=score_range,
        final_sparsity=final_sparsity,
        sparsity_schedule=sparsity_schedule,
        sparsity_penalty=sparsity_penalty,
        l2_sp=l2_sp,
        score_margin=score_margin,
        learning_rate=learning_rate,
        beta2=beta2,
        dense_learning_rate=dense_learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_length=max_length,
        warmup_ratio=warmup_ratio,
        seed=seed,
        eval_steps=eval_steps,
        metric=metric,
        patience=patience,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        report_to=report_to,
        base_name=base_name,
        eval_split=eval_split,
        keep_checkpoints=keep_checkpoints,
        revision=revision,
    )
    out = Output(format, json, quiet or not processes.is_first())
    if output is None or dry_run:
        tell(settings, out, token=token)
        return
    result = learn(settings, output, out, resume=resume, token=token)
    if not processes.is_first():
        return
    summary = {
        "run": str(result.folder),
        "mask": str(result.mask),
        "id": result.manifest.id,
        "bytes": result.mask.stat().st_size,
        "metrics": result.metrics,
    }
    out.show(
        summary,
        quiet=result.mask,
        title=str(result.mask),
        fields={
            "size": f"{summary['bytes']:,} bytes",
            **{name.replace("_", " "): f"{value:.4f}" for name, value in result.metrics.items()},
        },
    )
    if not result.metrics:
        out.hint("Not evaluated: no --eval-file was given.")
    out.hint(f"Next: maskhub info {result.mask}, then: maskhub apply {base} {result.mask} -o DIR")


def tell(settings: TrainSettings, out: Output, *, token: str | None = None) -> None:
    """Show what a training would mask."""
    import msgspec

    from maskhub.training.train import plan as plan_run

    plan = plan_run(settings, token=token)
    memory = {name: f"{size:,} bytes" for name, size in plan.memory.items()}
    out.show(
        msgspec.to_builtins(plan) | {"masked": plan.masked},
        quiet=plan.masked,
        title=f"{settings.base}: {len(plan.weights)} tensors would be masked",
        fields={
            "weights masked": f"{plan.masked:,}",
            "scores": f"{sum(weight.scores for weight in plan.weights):,}",
            "dense values": f"{plan.dense:,}",
            **memory,
        },
        tables=[
            [
                {
                    "parameter": weight.parameter,
                    "layer": "-" if weight.layer is None else str(weight.layer),
                    "kind": weight.kind,
                    "shape": "x".join(map(str, weight.shape)),
                    "scores": weight.scores,
                }
                for weight in plan.weights
            ]
        ],
    )


def learn(
    settings: TrainSettings, output: Path, out: Output, *, resume: bool = False, token: str | None = None
) -> TrainResult:
    """Train under a progress bar that shows loss and accuracy."""
    with out.progress("Loading torch", unit="") as loading:
        if loading:
            loading(0, 1)
        from maskhub.training.train import learn as run
    with out.progress("Training", unit="batches") as progress:

        def report(step: int, steps: int, numbers: object) -> None:
            if progress:
                assert isinstance(numbers, dict)
                progress(step, steps, ", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))

        return run(settings, output, resume=resume, report=report, token=token)
