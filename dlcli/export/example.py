"""The text of example.py: what all formats share. It runs beside the artefact, with its runtime and without dlcli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = '''"""{question} pip install {packages}; python example.py [{argument}]"""

import json
import sys
from pathlib import Path

import numpy as np
{imports}

here = Path(__file__).resolve().parent
manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
'''

_IMAGE = """
height, width, channels = manifest["inputs"][0]["shape"]
picture = Image.open(sys.argv[1] if len(sys.argv) > 1 else here / "sample.png")
picture = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
inputs = {"NAME": np.asarray(picture, np.uint8).reshape(1, height, width, channels)}
"""

_TABLE = """
path = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "sample.json"
row = json.loads(path.read_text(encoding="utf-8"))  # column -> value; null for a missing number
inputs = {}
for each in manifest["inputs"]:
    cell = row[each["column"]]
    if each["dtype"] == "float32" and cell is None:
        cell = np.nan
    if each["dtype"] == "int32":  # words by their number; -1 is a word that the model never saw
        known = manifest["vocabularies"][each["name"]]
        cell = known.index(cell) if cell in known else -1
    inputs[each["name"]] = np.array([[cell]], "str" if each["dtype"] == "string" else each["dtype"])
"""

_LATENTS = """
path = here / "sample.json"  # with an argument: other latents, of that seed
inputs = {name: np.array([value]) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
if len(sys.argv) > 1:
    inputs["latents"] = np.random.default_rng(int(sys.argv[1])).standard_normal(inputs["latents"].shape)
inputs = {each["name"]: inputs[each["name"]].astype(each["dtype"]) for each in manifest["inputs"]}
"""

_SAMPLE = '''
sampling = manifest["sampling"]
sample = json.loads((here / "sample.json").read_text(encoding="utf-8"))
image = np.array(sample["images"], np.float32)  # noise
if len(sys.argv) > 1:  # other noise, of that seed
    image = np.random.default_rng(int(sys.argv[1])).standard_normal(image.shape).astype(np.float32)


def ask(log_snr, label):
    """What the network says of the image."""
    inputs = {"images": image[None], "log_snr": np.array([log_snr], np.float32)}
    if label is not None:
        inputs["labels"] = np.array([label], np.int32)
    return np.asarray(PREDICT)[0]


def guided(log_snr):
    """With a guidance other than 1, what is said of the label counts more than what is said without one."""
    label, guidance, none = sample.get("labels"), sampling["guidance"], len(manifest["classes"])
    if label is None or guidance == 1:
        return ask(log_snr, label)
    without = ask(log_snr, none)
    return without if guidance == 0 else without + guidance * (ask(log_snr, label) - without)


def shares(log_snr):
    return [np.sqrt(1 / (1 + np.exp(-each))) for each in (log_snr, -log_snr)]  # of image and noise


for now, after in zip(sampling["log_snr"], sampling["log_snr"][1:]):  # DDIM: from all noise to none
    (signal, strength), (next_signal, next_strength) = shares(now), shares(after)
    said = guided(now)
    velocity = sampling["prediction"] == "velocity"
    clean = signal * image - strength * said if velocity else (image - strength * said) / signal
    clean = np.clip(clean, -1, 1)
    image = (next_signal * clean + next_strength * (image - signal * clean) / strength).astype(np.float32)
outputs = (clean + 1) / 2
'''

_IDS = '''
tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # a text that spells <end> is a text, not its end


def ids_of(text):
    """The first five ids are special: a text itself has none of them but 1, the unknown token."""
    return [token if token > 4 else 1 for token in tokenizer.encode(text, add_special_tokens=False).ids]


'''

_TEXT = 'text = sys.argv[1] if len(sys.argv) > 1 else (here / "sample.txt").read_bytes().decode()\n'

_ASKED = """asked = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "sample.json"
asked = json.loads(asked.read_text(encoding="utf-8"))
"""

_READ_TOKENS = {
    "text_classification": "ids = [START, *ids_of(text)[:ROOM], END] or [1]\n",
    "language_modeling": "ids = ids_of(text)[-ROOM:] or [1]  # the end of the text: what comes next?\n",
    "replaced_token_detection": "ids = [START, *ids_of(text)[:ROOM], END]\n",
    "masked_language_modeling": (
        'parts = text.split("<mask>")\n'
        "rows = [[*[4] * (n > 0), *ids_of(part)] for n, part in enumerate(parts)]  # 4 is <mask>\n"
        "ids = [START, *[token for row in rows for token in row][:ROOM], END]\n"
    ),
    "token_classification": (
        "words = text.split()\n"
        "pieces = [ids_of(SPACE + word if n else word) or [1] for n, word in enumerate(words)]\n"
        "ids = [START, *[token for piece in pieces for token in piece][:ROOM], END]\n"
    ),
    "question_answering": (
        'question = ids_of(asked["question"])[:QUESTION]\n'
        'context = tokenizer.encode(asked["context"], add_special_tokens=False)\n'
        'begin, room = len(question) + 2, ROOM - len(question) - 3\n'
        'ids = [START, *question, END, *ids_of(asked["context"])[:room], END]\n'
    ),
}  # fmt: skip

PICTURE = "generated.png"
"""What example.py writes of a model that draws."""

_SHOW_IMAGE = f"""picture = np.round(np.clip(outputs, 0, 1) * 255).astype(np.uint8)
Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save("{PICTURE}")
print("{PICTURE}: mean pixel", round(float(outputs.mean()), 6))
"""

_SHOW_TARGET = {
    "classes": 'print(manifest["classes"][outputs.argmax()], f"{outputs.max():.4f}")\n',
    "labels": (
        'for name, probability in zip(manifest["classes"], outputs):\n    print(name, f"{probability:.4f}")\n'
    ),
    "images": _SHOW_IMAGE,
    "values": 'for name, value in zip(manifest["classes"], outputs):\n    print(name, f"{value:.6g}")\n',
}

_SHOW_TASK = {
    "language_modeling": (
        "odds = np.exp(outputs[len(ids) - 1] - outputs[len(ids) - 1].max())\n"
        'print(repr(tokenizer.id_to_token(int(odds.argmax()))), f"{odds.max() / odds.sum():.4f}")\n'
    ),
    "masked_language_modeling": (
        "for place in np.flatnonzero(np.array(ids) == 4):\n"
        "    print(tokenizer.id_to_token(int(outputs[place, 5:].argmax()) + 5))\n"
    ),
    "replaced_token_detection": (
        "chances = np.reshape(outputs, -1)  # that another word stood there\n"
        'print(" ".join(f"{tokenizer.id_to_token(i)} {p:.2f}" for i, p in zip(ids[1:], chances[1:])))\n'
    ),
    "token_classification": (
        "place = 1\n"
        "for word, piece in zip(words, pieces):\n"
        "    if place < len(ids) - 1:\n"
        '        print(f"{word}/{manifest[\'classes\'][outputs[place].argmax()]}", end=" ")\n'
        "    place += len(piece)\n"
        "print()\n"
    ),
    "question_answering": (
        "start = int(outputs[: len(ids), 0].argmax())\n"
        "end = start + int(outputs[start : len(ids), 1][:ANSWER].argmax())\n"
        "score = outputs[start, 0] * outputs[end, 1]\n"
        "first, last = (context.offsets[max(place - begin, 0)] for place in (start, end))\n"
        'print(asked["context"][first[0] : last[1]] if start else "(no answer)", f"{score:.4f}")\n'
    ),
}

_TRANSLATE = """source, target = [*ids_of(text)[: ROOM - 1], 3], [2]  # 2 begins a text, 3 ends it
while len(target) < ROOM and target[-1] != 3:  # the most probable token, one after another
    inputs = {"source": np.array([source], np.int32), "target": np.array([target], np.int32)}
    target.append(int(np.asarray(PREDICT)[0, len(target) - 1].argmax()))
print(tokenizer.decode(target) or "(nothing)")
"""

_QUESTIONS = {
    "image": "Which class does an image show?",
    "latents": "What image do latents make?",
    "noise": "What image is in the noise?",
    "table": "What does the model say of a row?",
    "text": "What does the model say of a text?",
    "pairs": "What is this in the other language?",
    "questions": "Which part of a text answers a question?",
    "tagged": "Which tag has each word?",
}

_PILLOW = ("pillow", "from PIL import Image")
_READERS = {"image": _PILLOW, "latents": _PILLOW, "noise": _PILLOW, "table": ("", "")}
"""Kind of data -> the package that reads it and how it is imported; texts have tokenizers."""

_ARGUMENTS = {
    "latents": "seed",
    "noise": "seed",
    "image": "photo.png",
    "table": "row.json",
    "questions": "asked.json",
}

SAMPLES = {
    "image": "sample.png", "table": "sample.json", "questions": "sample.json", "latents": "sample.json",
    "noise": "sample.json",
}  # fmt: skip
"""Kind of data -> the file with a real input that example.py reads when it gets no argument; of texts a sample.txt."""


def script(manifest: Mapping[str, Any], imports: Sequence[str], predict: str, packages: Sequence[str]) -> str:
    """The text of example.py.

    Args:
        manifest: of the artefact.
        imports: lines such as `import onnxruntime`.
        predict: lines that load the artefact and define `predict(inputs)`: a dict of arrays, as many rows as the
            artefact takes, to an array of outputs. They may use `here` (the folder), `manifest` and `np`.
        packages: what `predict` needs, as pip knows it.
    """
    kind = manifest["kind"]
    package, own = _READERS.get(kind, ("tokenizers", "import tokenizers"))
    translates = kind == "image" and manifest["target"] == "images"
    head = _HEAD.format(
        question="What does an image become?" if translates else _QUESTIONS[kind],
        packages=" ".join(dict.fromkeys([*packages, "numpy", *package.split()])),
        argument=_ARGUMENTS.get(kind, "'a text'"),
        imports="\n".join(sorted({*imports, own} - {""}, key=lambda line: line.split()[1].lower())),
    )
    # Behind a function stand two empty lines.
    gap = "\n\n\n" if predict.rstrip().rpartition("\n")[2].startswith(" ") else "\n\n"
    return f"{head}\n{predict.strip()}{gap}{_read_and_show(manifest).lstrip()}"


def _read_and_show(manifest: Mapping[str, Any]) -> str:
    kind, task = manifest["kind"], manifest["task"]
    fit = _fit(manifest)
    call = f"predict({fit})"
    if kind == "pairs":
        return _filled(_IDS + _TEXT + _TRANSLATE.replace("PREDICT", call), manifest)
    if kind == "noise":
        return _SAMPLE.replace("PREDICT", call) + _SHOW_IMAGE
    if kind == "latents":
        read = _LATENTS
    elif kind == "image":
        read = _IMAGE.replace("NAME", manifest["inputs"][0]["name"])
    elif kind == "table":
        read = _TABLE
    else:
        read = _IDS + (_ASKED if kind == "questions" else _TEXT) + _READ_TOKENS[task]
        read += f'inputs = {{"{manifest["inputs"][0]["name"]}": np.array([ids], np.int32)}}\n'
    show = _SHOW_TASK[task] if task in _SHOW_TASK else _SHOW_TARGET[manifest["target"]]
    return _filled(f"{read}outputs = np.asarray({call})[0]\n{show}", manifest)


def _fit(manifest: Mapping[str, Any]) -> str:
    """The inputs as the artefact takes them: padded to its length, repeated up to its number of rows."""
    length, rows = manifest["length"], manifest["batch_size"] or 1
    array = "value"
    if length:
        array = f"np.pad(value, ((0, 0), (0, {length} - value.shape[1])))"
    if rows > 1:
        array = f"np.repeat({array}, {rows}, axis=0)"
    return "inputs" if array == "value" else f"{{name: {array} for name, value in inputs.items()}}"


def _filled(text: str, manifest: Mapping[str, Any]) -> str:
    """Numbers of the tokenizer in the place of their names."""
    known = manifest["tokenizer"]
    if known is None:
        return text
    start, end = (", ".join(map(str, known[side])) for side in ("start", "end"))
    special = 0 if manifest["kind"] in ("questions", "pairs") else len(known["start"]) + len(known["end"])
    values = {
        "START, ": f"{start}, " if start else "",
        ", END": f", {end}" if end else "",
        "ROOM": str(known["max_length"] - special),
        "QUESTION": str(known.get("max_question_length")),
        "ANSWER": str(known.get("max_answer_length")),
        "SPACE + ": '" " + ' if known.get("space_before_words") else "",
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text
