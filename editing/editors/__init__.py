"""One file per editor; a file registers its class under the name of its YAML in ``editing/hparams``."""
