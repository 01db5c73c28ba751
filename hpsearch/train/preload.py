"""What the fork server imports once, so that no trial's process has to."""

import gc

import numpy  # noqa: F401
import torch
import torch._dynamo
import torch.optim  # noqa: F401

import hpsearch.train.trial  # noqa: F401

# A collection in a child would touch, and so copy, every page of the modules above.
gc.collect()
gc.freeze()
