"""Processes that train one recipe together: on this machine, or described for a cluster.

workers      starts one process a worker, passes on what they print, and ends them together
supervise    starts them again when one dies, where that can help
worker       what such a process runs: `dlcli`, which does not outlive the process that started it
environment  what a worker has to be told: TF_CONFIG, its GPUs
calibrate    how many workers, or GPUs, train a recipe fastest here; timing is what each of its processes runs
ray          the workers of a Ray cluster; ray_worker is what Ray calls in each of them
slurm        the batch file of a Slurm cluster; slurm_cluster is how its processes find each other
kubernetes   the objects of a Kubernetes cluster

TensorFlow is never imported here: only the workers need it, and Ray Train, which imports it itself.
"""
