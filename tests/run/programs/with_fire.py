"""Parses with python-fire, has a flag without a value, and reports without a step."""

import fire
import hypertune


def train_evaluate(training_dataset_path, alpha, max_iter, hptune):
    assert hptune is True
    assert isinstance(max_iter, int)
    hpt = hypertune.HyperTune()
    for turn in range(3):
        hpt.report_hyperparameter_tuning_metric(
            hyperparameter_metric_tag="accuracy", metric_value=alpha * max_iter + turn
        )


if __name__ == "__main__":
    fire.Fire(train_evaluate)
