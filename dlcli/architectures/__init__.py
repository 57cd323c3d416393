"""Architectures: `build(inputs, *, ...) -> features`, in Keras layers and keras.ops only.

One row here and one file make a new family; the function's signature is its schema.
"""

ARCHITECTURES = {
    "perceptron": "dlcli.architectures.mlp:perceptron",
    "mlp": "dlcli.architectures.mlp:mlp",
    "cnn": "dlcli.architectures.cnn:cnn",
    "lenet5": "dlcli.architectures.lenet5:lenet5",
    "alexnet": "dlcli.architectures.alexnet:alexnet",
    "vgg": "dlcli.architectures.vgg:vgg",
    "resnet": "dlcli.architectures.resnet:resnet",
    "wide_resnet": "dlcli.architectures.wide_resnet:wide_resnet",
    "airbench": "dlcli.architectures.airbench:airbench",
    "application": "dlcli.architectures.application:application",
    "rnn": "dlcli.architectures.rnn:rnn",
    "text_cnn": "dlcli.architectures.text_cnn:text_cnn",
    "fasttext": "dlcli.architectures.fasttext:fasttext",
    "textgen_rnn": "dlcli.architectures.textgen_rnn:textgen_rnn",
    "transformer": "dlcli.architectures.transformer:transformer",
    "gpt": "dlcli.architectures.gpt:gpt",
    "bert": "dlcli.architectures.bert:bert",
    "seq2seq_rnn": "dlcli.architectures.seq2seq_rnn:seq2seq_rnn",
    "seq2seq_transformer": "dlcli.architectures.seq2seq_transformer:seq2seq_transformer",
    "pretrained": "dlcli.architectures.pretrained:pretrained",
    "frozen_features": "dlcli.architectures.frozen_features:frozen_features",
}

READ_A_SOURCE = ("pretrained", "frozen_features")
"""Architectures that load another model; whether they read images or texts is seen when it is there."""
