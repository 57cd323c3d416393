"""Architectures: `build(inputs, *, ...) -> features`, in Keras layers and keras.ops only.

One row here and one file make a new family; the function's signature is its schema. Those of GENERATIVE are
`build(inputs, num_classes, *, ...) -> {role: network}` instead; `dlcli.tasks.generative` says which roles.
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
    "mlp_gan": "dlcli.architectures.mlp_gan:mlp_gan",
    "dcgan": "dlcli.architectures.dcgan:dcgan",
    "resnet_gan": "dlcli.architectures.resnet_gan:resnet_gan",
    "style_gan": "dlcli.architectures.style_gan:style_gan",
    "cycle_gan": "dlcli.architectures.cycle_gan:cycle_gan",
    "pix2pix": "dlcli.architectures.pix2pix:pix2pix",
    "vae": "dlcli.architectures.vae:vae",
    "diffusion_unet": "dlcli.architectures.diffusion_unet:diffusion_unet",
}

READ_A_SOURCE = ("pretrained", "frozen_features")
"""Architectures that load another model; whether they read images or texts is seen when it is there."""

GENERATIVE = {
    "mlp_gan": ("gan",),
    "dcgan": ("gan",),
    "resnet_gan": ("gan",),
    "style_gan": ("gan",),
    "cycle_gan": ("image_translation",),
    "pix2pix": ("image_translation",),
    "vae": ("autoencoding",),
    "diffusion_unet": ("diffusion",),
}
"""Architectures that are sets of networks, and the tasks that know how these learn together."""
