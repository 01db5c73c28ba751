import sys

import hypertune

from packaged.model import loss

print("arguments", sys.argv[1:])
hypertune.HyperTune().report_hyperparameter_tuning_metric("loss", loss())
