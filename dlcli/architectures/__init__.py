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
}
