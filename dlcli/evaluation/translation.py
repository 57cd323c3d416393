"""Translation models -> the report of metrics.json: loss, perplexity and BLEU, and what they made of some sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli.console import console
from dlcli.data.examples import DataInfo
from dlcli.data.stream import by_length, evaluation_stream
from dlcli.data.text.sequences import TokenPairs
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.evaluation.beam_search import translate
from dlcli.evaluation.example_scores import ExampleScores, digest_of
from dlcli.evaluation.figure import BLUE, drawing
from dlcli.evaluation.intervals import Interval, percentiles
from dlcli.evaluation.language import LARGEST_BATCH, LARGEST_LOGITS, score_tokens
from dlcli.layers.tokens import tokens_of

SAMPLES = 10
"""Sentences that the report shows."""

RESAMPLES = 1000

_LONG_WORK = 200
"""Sentences from which on progress is shown."""


@dataclass(frozen=True)
class BleuSettings:
    """How translations are found and scored; see `dlcli.tasks.translation.Translation`."""

    beam_size: int = 4
    length_penalty: float = 0.6
    bleu_tokenizer: str = "13a"


@dataclass(frozen=True)
class Bleu:
    """BLEU of a corpus (Papineni et al. 2002), as sacrebleu counts it (Post 2018)."""

    score: float
    """0 to 100."""
    interval: Interval
    signature: str
    """What sacrebleu did, to be told beside the score."""
    statistics: np.ndarray
    """int64 (N, 10) for each sentence: n-grams found and n-grams written, of 1 to 4 words each; words written and
    words of the reference."""


def evaluate_translation(
    predictor: keras.Model,
    pairs: TokenPairs,
    examples: TextExamples,
    info: DataInfo,
    split: str,
    plots: Path,
    settings: BleuSettings,
) -> dict[str, Any]:
    """Scores a model on pairs of texts.

    Args:
        predictor: `source` and `target` -> logits (B, T, V).
        pairs: the examples as tokens.
        examples: N texts `source` and `target`.
        info: of the data, with the tokenizer.
        split: for the report.
        plots: the folder of pictures.
        settings: of beam search and BLEU.

    Returns:
        The form of metrics.json, with `bleu_signature` and `samples`.
    """
    if info.tokenizer is None:
        raise ValueError("Expected data with a tokenizer. Received: none")
    ordered, _ = by_length(pairs)  # type: ignore[arg-type]  # its targets are read, never set
    longest = int(pairs.target_sequences.lengths.max())
    size = max(1, min(LARGEST_BATCH, LARGEST_LOGITS // (longest * info.vocabulary_size)))
    scores = score_tokens(predictor, evaluation_stream(ordered, size))
    loss = float(scores.losses.sum() / scores.counts.sum())
    sources, references = list(examples.columns["source"]), list(examples.columns["target"])
    translations = _translated(predictor, info.tokenizer, sources, settings, info.max_length)
    bleu = corpus_bleu(
        translations, references, settings.bleu_tokenizer, lowercase=_writes_lowercase(info.tokenizer)
    )
    _plot_bleu_by_length(bleu, plots / f"{split}_bleu_by_length.png")
    rows = zip(sources[:SAMPLES], references, translations, strict=False)
    return {
        "split": split,
        "examples": len(examples),
        "metrics": {"bleu": bleu.score, "loss": loss, "perplexity": math.exp(min(loss, 700))},
        "intervals": {"bleu": bleu.interval},
        "bleu_signature": bleu.signature,
        "beam_size": settings.beam_size,
        "tokens": int(scores.counts.sum()),
        "samples": [
            {"source": source, "reference": reference, "translation": translation}
            for source, reference, translation in rows
        ],
    }


def translation_scores(
    predictor: keras.Model, examples: TextExamples, info: DataInfo, settings: BleuSettings
) -> ExampleScores:
    """What the translation of each sentence adds to BLEU; arguments as of `evaluate_translation`."""
    if info.tokenizer is None:
        raise ValueError("Expected data with a tokenizer. Received: none")
    sources, references = list(examples.columns["source"]), list(examples.columns["target"])
    translations = _translated(predictor, info.tokenizer, sources, settings, info.max_length)
    lowercase = _writes_lowercase(info.tokenizer)
    bleu = corpus_bleu(translations, references, settings.bleu_tokenizer, lowercase=lowercase)

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        totals = np.rint(means * len(sources)).astype(np.int64)
        return {"bleu": np.array([bleu_of(total) for total in totals])}

    return ExampleScores(
        bleu.statistics.astype(np.float64), metrics, digest_of(references, bleu.signature), units="sentences"
    )


def predict_translations(
    model: keras.Model, task_arguments: Mapping[str, Any], texts: Sequence[str]
) -> list[str]:
    """Translations of texts by a saved model.

    Args:
        model: of task `translation`; it holds its vocabulary.
        task_arguments: of the run's recipe.
        texts: to translate.
    """
    tokens = tokens_of(model)
    if tokens is None:
        raise ValueError(f"Expected a model of texts. Received: {model.name}")
    chosen = {
        name: task_arguments[name] for name in ("beam_size", "length_penalty") if name in task_arguments
    }
    return _translated(model, tokens.tokenizer, texts, BleuSettings(**chosen), tokens.max_length)


def corpus_bleu(
    translations: Sequence[str], references: Sequence[str], tokenizer: str = "13a", *, lowercase: bool = False
) -> Bleu:
    """BLEU with a 95 % bootstrap interval over the sentences (Koehn 2004).

    Args:
        translations: N, whole texts and no tokens.
        references: N, one for each.
        tokenizer: of sacrebleu: `13a`, `zh`, `char`, `intl` or `none`.
        lowercase: whether case counts for nothing; the signature says `case:lc` then.
    """
    from sacrebleu.metrics.bleu import BLEU

    # Forced, because sacrebleu warns of texts that look like tokens, as a word vocabulary writes them.
    metric = BLEU(tokenize=tokenizer, lowercase=lowercase, force=True, effective_order=False)
    result = metric.corpus_score(list(translations), [list(references)])
    signature = str(metric.get_signature())
    one = BLEU(
        tokenize=tokenizer, lowercase=lowercase, force=True, effective_order=True
    )  # as sacrebleu wants it
    parts = [
        one.sentence_score(text, [reference])
        for text, reference in zip(translations, references, strict=True)
    ]
    statistics = np.array(
        [[*part.counts, *part.totals, part.sys_len, part.ref_len] for part in parts], np.int64
    )
    drawn = np.random.default_rng(0).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), RESAMPLES)
    scores = np.array([bleu_of(counts) for counts in drawn @ statistics])
    return Bleu(float(result.score), percentiles(scores), signature, statistics)


def bleu_of(statistics: np.ndarray) -> float:
    """BLEU of added-up statistics (10,), smoothed as sacrebleu does by default."""
    from sacrebleu.metrics.bleu import BLEU

    found, written = statistics[:4].tolist(), statistics[4:8].tolist()
    score = BLEU.compute_bleu(found, written, int(statistics[8]), int(statistics[9]), smooth_method="exp")
    return float(score.score)


def _translated(
    model: keras.Model, tokenizer: Tokenizer, texts: Sequence[str], settings: BleuSettings, max_length: int
) -> list[str]:
    with _progress(len(texts)) as advance:
        return translate(
            model,
            tokenizer,
            texts,
            beam_size=settings.beam_size,
            length_penalty=settings.length_penalty,
            max_length=max_length,
            advance=advance,
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, where there is much to translate; what it gives is told of sentences that are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("translating"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = total >= _LONG_WORK and console.is_terminal and not console.quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)


def _writes_lowercase(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has no capitals, so that the case of a reference is nothing a model could meet."""

    def lowers(normalizer: Any) -> bool:
        if not isinstance(normalizer, dict):
            return False
        parts = normalizer.get("normalizers", [])
        return (
            normalizer.get("type") == "Lowercase"
            or normalizer.get("lowercase") is True
            or any(lowers(part) for part in parts)
        )

    return lowers(json.loads(tokenizer.json).get("normalizer"))


def _plot_bleu_by_length(bleu: Bleu, path: Path) -> None:
    """BLEU of short and long sentences (Bahdanau et al. 2015, figure 2), with the number of sentences."""
    lengths = bleu.statistics[:, 9]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 7)).round().astype(int))
    groups = np.digitize(lengths, edges[1:-1], right=True)
    present = np.unique(groups)
    values = [bleu_of(bleu.statistics[groups == group].sum(axis=0)) for group in present]
    names = []
    for group in present:
        of_group = lengths[groups == group]
        shortest, longest = of_group.min(), of_group.max()
        span = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        names.append(f"{span}\n({len(of_group):,})")
    with drawing(6.5, 3.4, path) as figure:
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, color=BLUE, width=0.7)
        axes.axhline(bleu.score, color="black", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(names)), names)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="words of the reference (sentences)", ylabel="BLEU")
        axes.set_title(f"BLEU by length · all {len(lengths):,} sentences {bleu.score:.1f} (dashed)")
